#include "ops/cpu/ctc_cpu.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <span>

#include "ops/arguments.h"
#include "ops/cpu/batch.h"
#include "ops/cpu/task.h"

namespace mlx_ctc::cpu {

namespace {

// The segments into which the frames are divided, with a checkpoint of alpha
// between two. A segment has as many frames as leave the gradient's rows in a
// core's second-level cache; at most 256, because one score out of the limits
// of doubles makes its whole segment slow; but at least the square root of T,
// so that the memory of checkpoints and rows together grows only with that.
struct Segments {
  static constexpr int64_t cache_bytes = 1 << 20;
  static constexpr int64_t most = 256; // frames

  int64_t pitch; // of a row of states
  int frames; // of a segment
  int checkpoints;

  Segments(int64_t T, int64_t S, size_t real_bytes) {
    pitch = S + 1;
    // Each frame has three rows of pairs (mantissa, exponent).
    int64_t cached = cache_bytes / (6 * pitch * int64_t(real_bytes));
    int64_t root = std::ceil(std::sqrt(double(T)));
    frames = whole_renewals(std::max(std::min(cached, most), root));
    checkpoints = T > 0 ? (T - 1) / frames : 0;
  }
};

Segments segments_of(const std::vector<mx::array>& inputs) {
  return {
      inputs[0].shape(0),
      inputs[1].shape(1),
      mx::size_of(computing_dtype(inputs[0].dtype()))};
}

// A batch, and what loss() saves of it for gradient().
class SavingBatch : public Batch {
 public:
  SavingBatch(const Options& options, const std::vector<mx::array>& inputs)
      : Batch(inputs, options.blank, options.with_logits),
        segments(segments_of(inputs)),
        kernels(cpu::kernels(element)) {}

  // What loss() saved, or is about to save, for sequence n.
  Saved saved(int n, const mx::array* arrays) const {
    auto at = [n](const mx::array& a) -> void* {
      int64_t bytes = a.shape(0) > 0 ? a.nbytes() / a.shape(0) : 0;
      return const_cast<char*>(a.data<char>()) + n * bytes;
    };
    return {
        at(arrays[1]),
        at(arrays[2]),
        at(arrays[3]),
        segments.pitch,
        segments.frames};
  }

  const Segments segments;
  const Kernels& kernels;
};

template <typename Real>
void eval_loss(
    const Options& options,
    const Workspaces& workspaces,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  SavingBatch batch(options, inputs);
  Real* loss = outputs[0].data<Real>();
  double* minus_log_z = outputs[1].data<double>();
  batch.for_each_sequence(
      workspaces, [&](int n, std::span<std::byte> workspace) {
        double value = std::numeric_limits<double>::quiet_NaN();
        if (batch.is_valid(n)) {
          value = batch.kernels.loss(
              batch.sequence(n), batch.saved(n, outputs.data() + 1), workspace);
        }
        minus_log_z[n] = value;
        // Rounding may put the loss of a certain alignment a little below zero.
        double rounding = 16 * batch.T * std::numeric_limits<double>::epsilon();
        if (value < 0 && value > -rounding) {
          value = 0;
        }
        loss[n] = options.zero_infinity && std::isinf(value) ? 0 : value;
      });
}

template <typename Real>
void eval_gradient(
    const Options& options,
    const Workspaces& workspaces,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  SavingBatch batch(options, inputs);
  mx::array& output = outputs[0];
  const mx::array& cotangents = inputs[4];
  const double* minus_log_z = inputs[5].data<double>();
  size_t row_bytes = batch.C * output.itemsize();
  size_t frame_bytes = batch.N * row_bytes;
  fetch_pages(output);
  batch.for_each_sequence(
      workspaces, [&](int n, std::span<std::byte> workspace) {
        char* gradient = output.data<char>() + n * row_bytes;
        Sequence sequence = batch.sequence(n);
        Real cotangent = cotangents.data<Real>()[n * cotangents.strides(0)];
        double loss = minus_log_z[n];

        int written = 0; // frames; the others' gradient is zero
        if (cotangent != 0 && std::isnan(loss)) {
          written = batch.is_valid(n) ? sequence.frames : batch.T;
          for (int64_t t = 0; t < written; ++t) {
            fill_with_nan(output.dtype(), gradient + t * frame_bytes, batch.C);
          }
        } else if (cotangent != 0 && !std::isinf(loss) && sequence.frames > 0) {
          written = sequence.frames;
          batch.kernels.gradient(
              sequence,
              batch.saved(n, inputs.data() + 5),
              cotangent,
              options.normalized,
              gradient,
              int64_t(batch.N) * batch.C,
              workspace);
        }
        for (int64_t t = written; t < batch.T; ++t) {
          std::fill_n(gradient + t * frame_bytes, row_bytes, 0);
        }
      });
}

template <typename Real>
void eval_posteriors(
    const PosteriorOptions& options,
    const Workspaces& workspaces,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  SavingBatch batch(options.loss(), inputs);
  int64_t width = outputs[0].shape(2);
  batch.for_each_sequence(
      workspaces, [&](int n, std::span<std::byte> workspace) {
        Sequence sequence = batch.sequence(n);
        Saved saved = batch.saved(n, outputs.data() + 1);
        Real* rows = outputs[0].data<Real>() + n * batch.T * width;
        Real* end = rows + batch.T * width;
        if (!batch.is_valid(n)) {
          std::fill(rows, end, std::numeric_limits<Real>::quiet_NaN());
          return;
        }
        Real* end_of_frames = rows + sequence.frames * width;
        double loss = batch.kernels.loss(sequence, saved, workspace);
        if (std::isfinite(loss) && sequence.frames > 0) {
          batch.kernels.posteriors(
              sequence, saved, options.by_class, rows, width, workspace);
        } else {
          std::fill(
              rows, end_of_frames, std::isnan(loss) ? Real(loss) : Real(0));
        }
        std::fill(end_of_frames, end, Real(0));
      });
}

std::shared_ptr<Workspaces> workspaces_for(
    const char* op,
    mx::Stream stream,
    const std::vector<mx::array>& inputs) {
  size_t bytes = kernels(element_of(inputs[0].dtype()))
                     .workspace_bytes(
                         inputs[0].shape(2),
                         inputs[1].shape(1),
                         segments_of(inputs).frames);
  return Workspaces::on(stream, op, bytes, inputs[0], inputs[1]);
}

template <typename Options>
using Eval = void (*)(
    const Options&,
    const Workspaces&,
    const std::vector<mx::array>&,
    std::vector<mx::array>&);

// Queues the evaluation that computes in float, or in double for float64.
template <typename Options>
void queue(
    const char* op,
    const Options& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs,
    Eval<Options> in_float,
    Eval<Options> in_double) {
  auto workspaces = workspaces_for(op, stream, inputs);
  auto eval = inputs[0].dtype() == mx::float64 ? in_double : in_float;
  auto task = [options, workspaces, eval](auto& inputs, auto& outputs) {
    eval(options, *workspaces, inputs, outputs);
  };
  dispatch(stream, workspaces->size(), inputs, outputs, options.blank, task);
}

} // namespace

Outputs saved_outputs(
    const std::vector<mx::array>& inputs,
    const Options& options) {
  int T = inputs[0].shape(0);
  int N = inputs[0].shape(1);
  auto real = computing_dtype(inputs[0].dtype());
  auto exponent = real == mx::float64 ? mx::int64 : mx::int32;
  Segments segments = segments_of(inputs);
  mx::Shape checkpoints = {
      N, segments.checkpoints, 2, static_cast<int>(segments.pitch)};
  mx::Shape normalisers = {N, options.with_logits ? T : 0, 2};
  return {
      {{N}, normalisers, checkpoints, checkpoints},
      {mx::float64, real, real, exponent}};
}

void loss(
    const Options& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  queue(
      "ctc_loss",
      options,
      stream,
      inputs,
      outputs,
      eval_loss<float>,
      eval_loss<double>);
}

void gradient(
    const Options& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  queue(
      "ctc_loss",
      options,
      stream,
      inputs,
      outputs,
      eval_gradient<float>,
      eval_gradient<double>);
}

void posteriors(
    const PosteriorOptions& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  queue(
      "ctc_posteriors",
      options,
      stream,
      inputs,
      outputs,
      eval_posteriors<float>,
      eval_posteriors<double>);
}

} // namespace mlx_ctc::cpu
