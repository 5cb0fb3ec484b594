#include "ops/cpu/ctc_cpu.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <tuple>
#include <vector>

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
    frames = std::max(
        whole_renewals(std::min(cached, most)), square_root_segment(T));
    checkpoints = T > 0 ? (T - 1) / frames : 0;
  }
};

Segments segments_of(const std::vector<mx::array>& inputs) {
  return {
      inputs[0].shape(0),
      inputs[1].shape(1),
      mx::size_of(computing_dtype(inputs[0].dtype()))};
}

// The place of the cotangents in the inputs of gradient().
constexpr int cotangent_input = batch_inputs;

// After the loss or the posteriors.
SavedArrays<mx::array> saved_in_outputs(std::vector<mx::array>& outputs) {
  return {outputs.data() + 1};
}

// After the cotangents.
SavedArrays<const mx::array> saved_in_inputs(
    const std::vector<mx::array>& inputs) {
  return {inputs.data() + cotangent_input + 1};
}

// A batch with its segments, the recursion for its type, and the places of its
// sequences in SavedArrays.
class SavingBatch : public Batch {
 public:
  SavingBatch(const Options& options, const std::vector<mx::array>& inputs)
      : Batch(inputs, options.blank, options.with_logits),
        segments(segments_of(inputs)),
        kernels(cpu::kernels(element)) {}

  // What loss() saved, or is about to save, for sequence n.
  template <typename Array>
  Saved saved(int n, SavedArrays<Array> arrays) const {
    auto at = [n](const mx::array& a) -> void* {
      int64_t bytes = a.shape(0) > 0 ? a.nbytes() / a.shape(0) : 0;
      return const_cast<char*>(a.data<char>()) + n * bytes;
    };
    return {
        .normalisers = at(arrays.normalisers()),
        .mantissas = at(arrays.mantissas()),
        .exponents = at(arrays.exponents()),
        .pitch = segments.pitch,
        .segment_frames = segments.frames};
  }

  const Segments segments;
  const Kernels& kernels;
};

// The rows of one sequence in a gradient (T, N, C).
class Rows {
 public:
  Rows(mx::array& gradient, const Batch& batch, int n)
      : batch_(batch),
        n_(n),
        dtype_(gradient.dtype()),
        row_bytes_(batch.C * gradient.itemsize()),
        begin_(gradient.data<char>() + n * row_bytes_) {}

  // From one row to the next, in elements.
  int64_t stride() const {
    return int64_t(batch_.N) * batch_.C;
  }

  char* row(int64_t t) const {
    return begin_ + t * batch_.N * row_bytes_;
  }

  // The rows that a loss of NaN makes NaN: all frames, unless lengths and
  // labels are valid.
  int fill_with_nan() const {
    int frames = batch_.is_valid(n_) ? batch_.sequence(n_).frames : batch_.T;
    for (int t = 0; t < frames; ++t) {
      cpu::fill_with_nan(dtype_, row(t), batch_.C);
    }
    return frames;
  }

  void fill_with_zeros(int first) const {
    for (int t = first; t < batch_.T; ++t) {
      std::fill_n(row(t), row_bytes_, 0);
    }
  }

 private:
  const Batch& batch_;
  const int n_;
  const mx::Dtype dtype_;
  const size_t row_bytes_;
  char* const begin_;
};

// The loss of sequence n, and the rows of its early gradient.
double loss_and_gradient(
    const Options& options,
    const SavingBatch& batch,
    int n,
    SavedArrays<mx::array> saved,
    std::span<std::byte> workspace) {
  Rows rows(saved.early_gradient(), batch, n);
  Sequence sequence = batch.sequence(n);
  double loss = std::numeric_limits<double>::quiet_NaN();
  if (batch.is_valid(n)) {
    loss = batch.kernels.loss_and_gradient(
        sequence,
        batch.saved(n, saved),
        options.normalized,
        rows.row(0),
        rows.stride(),
        workspace);
  }
  int written = std::isfinite(loss) ? sequence.frames : 0;
  if (std::isnan(loss)) {
    written = rows.fill_with_nan();
  }
  rows.fill_with_zeros(written);
  return loss;
}

template <typename Real>
void eval_loss(
    const Options& options,
    const Workspaces& workspaces,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  SavingBatch batch(options, inputs);
  Real* loss = outputs[0].data<Real>();
  auto saved = saved_in_outputs(outputs);
  double* minus_log_z = saved.minus_log_z().data<double>();
  bool with_gradient = saved.early_gradient().data_size() > 0;
  batch.for_each_sequence(
      workspaces, [&](int n, std::span<std::byte> workspace) {
        double value = std::numeric_limits<double>::quiet_NaN();
        if (with_gradient) {
          value = loss_and_gradient(options, batch, n, saved, workspace);
        } else if (batch.is_valid(n)) {
          value = batch.kernels.loss(
              batch.sequence(n), batch.saved(n, saved), workspace);
        }
        minus_log_z[n] = value;
        // Rounding may put the loss of a certain alignment a little below zero.
        double rounding =
            16.0 * batch.T * std::numeric_limits<double>::epsilon();
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
  const mx::array& cotangents = inputs[cotangent_input];
  auto saved = saved_in_inputs(inputs);
  const double* minus_log_z = saved.minus_log_z().data<double>();
  fetch_pages(output);
  batch.for_each_sequence(
      workspaces, [&](int n, std::span<std::byte> workspace) {
        Rows rows(output, batch, n);
        Sequence sequence = batch.sequence(n);
        Real cotangent = cotangents.data<Real>()[n * cotangents.strides(0)];
        double loss = minus_log_z[n];

        int written = 0; // frames; the others' gradient is zero
        if (cotangent != 0 && std::isnan(loss)) {
          written = rows.fill_with_nan();
        } else if (cotangent != 0 && !std::isinf(loss) && sequence.frames > 0) {
          written = sequence.frames;
          batch.kernels.gradient(
              sequence,
              batch.saved(n, saved),
              cotangent,
              options.normalized,
              rows.row(0),
              rows.stride(),
              workspace);
        }
        rows.fill_with_zeros(written);
      });
}

// Whether a gradient has taken an early one's memory. It lies behind the
// elements.
std::atomic<bool>* is_taken(const mx::array& early) {
  auto elements = const_cast<char*>(early.data<char>());
  return reinterpret_cast<std::atomic<bool>*>(elements + early.nbytes());
}

// By what the rows of one sequence in an early gradient are multiplied.
struct Factor {
  float cotangent;
  int frames; // those after them keep their rows
};

Factor factor(const std::vector<mx::array>& inputs, int64_t n) {
  const mx::array& lengths = inputs[2];
  const mx::array& cotangents = inputs[cotangent_input];
  float cotangent = cotangents.data<float>()[n * cotangents.strides(0)];
  double loss = saved_in_inputs(inputs).minus_log_z().data<double>()[n];
  if (std::isnan(loss)) { // the length may be out of range
    return {cotangent, cotangent == 0 ? inputs[0].shape(0) : 0};
  }
  if (std::isinf(loss)) {
    return {cotangent, 0};
  }
  return {cotangent, lengths.data<int32_t>()[n * lengths.strides(0)]};
}

// Multiplies an early gradient by the cotangents.
void multiply(
    int threads,
    const std::vector<mx::array>& inputs,
    mx::array& gradient) {
  auto [T, N, C] =
      std::tuple(gradient.shape(0), gradient.shape(1), gradient.shape(2));
  std::vector<Factor> factors(N);
  for (int n = 0; n < N; ++n) {
    factors[n] = factor(inputs, n);
  }
  if (std::ranges::all_of(factors, [](const Factor& f) {
        return f.cotangent == 1 || f.frames == 0;
      })) {
    return;
  }
  int64_t frame = int64_t(N) * C;
  parallel_for(T, threads, [&, C = C](int64_t t, int) {
    float* row = gradient.data<float>() + t * frame;
    for (auto [cotangent, frames] : factors) {
      if (t < frames && cotangent == 0) { // 0 times infinity would be NaN
        std::fill_n(row, C, 0.0f);
      } else if (t < frames) {
        auto product = [=](float x) { return x * cotangent; };
        std::transform(row, row + C, row, product);
      }
      row += C;
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
      workspaces, [&](int64_t n, std::span<std::byte> workspace) {
        Sequence sequence = batch.sequence(n);
        Saved saved = batch.saved(n, saved_in_outputs(outputs));
        int64_t size = batch.T * width; // of the rows of a sequence
        Real* rows = outputs[0].data<Real>() + n * size;
        Real* end = rows + size;
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
    const std::vector<mx::array>& inputs,
    int losses) {
  size_t bytes = kernels(element_of(inputs[0].dtype()))
                     .workspace_bytes(
                         inputs[0].shape(2),
                         inputs[1].shape(1),
                         segments_of(inputs).frames);
  return Workspaces::on(stream, op, bytes, inputs[0], inputs[1], losses);
}

template <typename Options>
using Eval = void (*)(
    const Options&,
    const Workspaces&,
    const std::vector<mx::array>&,
    std::vector<mx::array>&);

// Queues the evaluation that computes in float, or in double for float64, and
// takes as long as `losses` of the batch.
template <typename Options>
void queue(
    const char* op,
    const Options& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs,
    Eval<Options> in_float,
    Eval<Options> in_double,
    int losses = 1) {
  auto workspaces = workspaces_for(op, stream, inputs, losses);
  auto eval = inputs[0].dtype() == mx::float64 ? in_double : in_float;
  auto task = [options, workspaces, eval](auto& inputs, auto& outputs) {
    eval(options, *workspaces, inputs, outputs);
  };
  dispatch(stream, workspaces->size(), inputs, outputs, options.blank, task);
}

} // namespace

mx::Shape early_gradient_shape(const std::vector<mx::array>& inputs) {
  // One of 16 bits would be rounded twice. A large one is not in a cache when
  // its cotangents come, and the product takes longer than what is spared.
  constexpr size_t most_bytes = 32 << 20;
  bool fits =
      inputs[0].dtype() == mx::float32 && inputs[0].nbytes() < most_bytes;
  return fits ? inputs[0].shape() : mx::Shape{0};
}

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
      // in the order of SavedArrays
      {{N}, normalisers, checkpoints, checkpoints},
      {mx::float64, real, real, exponent}};
}

void loss(
    const Options& options,
    bool with_gradient,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  auto& early = saved_in_outputs(outputs).early_gradient();
  with_gradient &= early.size() > 0;
  if (with_gradient) {
    allocate(early, sizeof(std::atomic<bool>));
    new (is_taken(early)) std::atomic<bool>(false);
  } else {
    leave_empty(early);
  }
  queue(
      "ctc_loss",
      options,
      stream,
      inputs,
      outputs,
      eval_loss<float>,
      eval_loss<double>,
      with_gradient ? 2 : 1);
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

bool take_early_gradient(const std::vector<mx::array>& inputs) {
  const auto& early = saved_in_inputs(inputs).early_gradient();
  return early.data_size() > 0 && !is_taken(early)->exchange(true);
}

void multiply_early_gradient(
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  outputs[0].copy_shared_buffer(saved_in_inputs(inputs).early_gradient());
  constexpr int64_t products = 4; // in a nanosecond
  int threads = threads_for(outputs[0].size() / products);
  auto task = [threads](auto& inputs, auto& outputs) {
    multiply(threads, inputs, outputs[0]);
  };
  dispatch(stream, threads, inputs, outputs, 0, task);
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
