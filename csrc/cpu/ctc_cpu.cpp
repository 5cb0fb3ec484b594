#include "cpu/ctc_cpu.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <sstream>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "cpu/parallel.h"
#include "cpu/sequence.h"
#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"

namespace mlx_ctc::cpu {

namespace {

// The frames between two checkpoints of alpha: as many as leave the gradient's
// rows in a core's own cache, but so few checkpoints that they and the rows
// together grow with the square root of T.
struct Interval {
  static constexpr int64_t cache_bytes = 1 << 20;

  int64_t pitch; // of a row of states
  int frames;
  int checkpoints;

  Interval(int64_t T, int64_t S, size_t real_bytes) {
    pitch = S + 1;
    // Three rows of (mantissa, exponent) are kept for a frame.
    int64_t cached = cache_bytes / (6 * pitch * int64_t(real_bytes));
    int64_t root = std::ceil(std::sqrt(double(T)));
    frames =
        std::clamp<int64_t>(std::max(cached, root), 1, std::max<int64_t>(T, 1));
    checkpoints = T > 0 ? (T - 1) / frames : 0;
  }
};

Element element(mx::Dtype dtype) {
  switch (dtype) {
    case mx::float16:
      return Element::float16;
    case mx::bfloat16:
      return Element::bfloat16;
    case mx::float64:
      return Element::float64;
    default:
      return Element::float32;
  }
}

mx::Dtype computing_dtype(mx::Dtype dtype) {
  return dtype == mx::float64 ? mx::float64 : mx::float32;
}

[[noreturn]] void
out_of_range(const std::string& what, const std::string& range, int got) {
  std::ostringstream message;
  message << "[ctc_loss] Expected " << what << " in " << range << " but got "
          << got << ".";
  throw std::invalid_argument(message.str());
}

// The batch as the sequences' kernels see it, every label and length checked.
class Batch {
 public:
  Batch(const Options& options, const std::vector<mx::array>& inputs)
      : options_(options),
        log_probs_(inputs[0]),
        T(inputs[0].shape(0)),
        N(inputs[0].shape(1)),
        C(inputs[0].shape(2)),
        S(inputs[1].shape(1)),
        interval(T, S, mx::size_of(computing_dtype(inputs[0].dtype()))),
        kernels(cpu::kernels(element(inputs[0].dtype()))),
        input_lengths_(read_lengths(inputs[2], "input_lengths", T)),
        target_lengths_(read_lengths(inputs[3], "target_lengths", S)),
        labels_(read_labels(inputs[1])) {}

  Sequence sequence(int n) const {
    auto strides = log_probs_.strides();
    return {
        log_probs_.data<char>() +
            n * strides[1] * int64_t(log_probs_.itemsize()),
        strides[0],
        strides[2],
        input_lengths_[n],
        C,
        labels_.data() + int64_t(n) * S,
        target_lengths_[n],
        options_.blank,
        options_.with_logits};
  }

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
        interval.pitch,
        interval.frames};
  }

  // Runs body(n, workspace) for every sequence, over the threads.
  template <typename Body>
  void for_each_sequence(const Body& body) const {
    size_t bytes = kernels.workspace_bytes(C, S, interval.frames);
    std::vector<std::unique_ptr<std::byte[]>> workspaces(max_threads());
    parallel_for(N, [&](int64_t n, int worker) {
      auto& workspace = workspaces[worker];
      if (!workspace) {
        workspace.reset(new std::byte[bytes + 64]);
      }
      auto address = reinterpret_cast<uintptr_t>(workspace.get());
      body(n, workspace.get() + (64 - address % 64));
    });
  }

 private:
  std::vector<int32_t>
  read_lengths(const mx::array& lengths, const char* name, int max) const {
    const int32_t* values = lengths.data<int32_t>();
    std::vector<int32_t> result(N);
    for (int n = 0; n < N; ++n) {
      int32_t length = values[n * lengths.strides(0)];
      if (length < 0 || length > max) {
        std::string range = "[0, " + std::to_string(max) + "]";
        if (length == wrong_total) {
          range += " and 1-D targets of sum(target_lengths) labels";
        }
        out_of_range(
            std::string(name) + "[" + std::to_string(n) + "]", range, length);
      }
      result[n] = length;
    }
    return result;
  }

  // (N, S), of which only the first target_length labels of a row are read.
  std::vector<int32_t> read_labels(const mx::array& targets) const {
    const int32_t* values = targets.data<int32_t>();
    std::vector<int32_t> result(int64_t(N) * S);
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t s = 0; s < target_lengths_[n]; ++s) {
        int32_t label = values[n * targets.strides(0) + s * targets.strides(1)];
        if (label < 0 || label >= C) {
          out_of_range(
              "targets[" + std::to_string(n) + ", " + std::to_string(s) + "]",
              "[0, " + std::to_string(C) + ")",
              label);
        }
        result[n * S + s] = label;
      }
    }
    return result;
  }

  const Options& options_;
  const mx::array& log_probs_;

 public:
  const int T;
  const int N;
  const int C;
  const int S;
  const Interval interval;
  const Kernels& kernels;

 private:
  std::vector<int32_t> input_lengths_;
  std::vector<int32_t> target_lengths_;
  std::vector<int32_t> labels_;
};

template <typename Real>
void eval_loss(
    const Options& options,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  Batch batch(options, inputs);
  Real* loss = outputs[0].data<Real>();
  double* minus_log_z = outputs[1].data<double>();
  batch.for_each_sequence([&](int n, std::byte* workspace) {
    double value = batch.kernels.loss(
        batch.sequence(n), batch.saved(n, outputs.data() + 1), workspace);
    minus_log_z[n] = value;
    // Rounding may put the loss of a certain alignment a little below zero.
    double rounding = batch.T * double(std::numeric_limits<Real>::epsilon());
    if (value < 0 && value > -rounding) {
      value = 0;
    }
    loss[n] = options.zero_infinity && std::isinf(value) ? 0 : value;
  });
}

template <typename Real>
void eval_gradient(
    const Options& options,
    const std::vector<mx::array>& inputs,
    mx::array& output) {
  Batch batch(options, inputs);
  const mx::array& cotangents = inputs[4];
  const double* minus_log_z = inputs[5].data<double>();
  size_t item = output.itemsize();
  size_t row_bytes = batch.C * item;
  size_t frame_bytes = batch.N * row_bytes;
  // Zero and NaN of any floating type, from bytes.
  mx::array nan(std::numeric_limits<float>::quiet_NaN(), output.dtype());
  batch.for_each_sequence([&](int n, std::byte* workspace) {
    char* gradient = output.data<char>() + n * row_bytes;
    Sequence sequence = batch.sequence(n);
    Real cotangent = cotangents.data<Real>()[n * cotangents.strides(0)];
    double loss = minus_log_z[n];

    int written = 0; // frames; the others' gradient is zero
    if (cotangent != 0 && std::isnan(loss)) {
      written = sequence.frames;
      for (int64_t t = 0; t < written; ++t) {
        char* row = gradient + t * frame_bytes;
        for (int c = 0; c < batch.C; ++c) {
          std::copy_n(nan.data<char>(), item, row + c * item);
        }
      }
    } else if (cotangent != 0 && !std::isinf(loss) && sequence.frames > 0) {
      written = sequence.frames;
      batch.kernels.gradient(
          sequence,
          batch.saved(n, inputs.data() + 5),
          cotangent,
          gradient,
          int64_t(batch.N) * batch.C,
          workspace);
    }
    for (int64_t t = written; t < batch.T; ++t) {
      std::fill_n(gradient + t * frame_bytes, row_bytes, 0);
    }
  });
}

// Arrays that a task on the stream may use while MLX keeps the originals.
std::vector<mx::array> weak_copies(const std::vector<mx::array>& arrays) {
  std::vector<mx::array> copies;
  for (const auto& a : arrays) {
    copies.push_back(mx::array::unsafe_weak_copy(a));
  }
  return copies;
}

// Large fresh memory comes in huge pages where the system has them: a fault for
// each small one would take as long as the loss.
void advise_huge_pages([[maybe_unused]] mx::array& a) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t huge = 2 << 20;
  auto begin = reinterpret_cast<uintptr_t>(a.data<char>());
  auto first = (begin + huge - 1) / huge * huge;
  auto last = (begin + a.nbytes()) / huge * huge;
  if (first < last) {
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#endif
}

template <typename Task>
void dispatch(
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs,
    Task task) {
  for (auto& out : outputs) {
    out.set_data(mx::allocator::malloc(out.nbytes()));
    advise_huge_pages(out);
  }
  mx::cpu::get_command_encoder(stream).dispatch(
      [task,
       inputs = weak_copies(inputs),
       outputs = weak_copies(outputs)]() mutable { task(inputs, outputs); });
}

} // namespace

std::vector<mx::Shape> saved_shapes(
    const std::vector<mx::array>& inputs,
    const Options& options) {
  int T = inputs[0].shape(0);
  int N = inputs[0].shape(1);
  auto real = computing_dtype(inputs[0].dtype());
  Interval interval(T, inputs[1].shape(1), mx::size_of(real));
  mx::Shape checkpoints = {
      N, interval.checkpoints, 2, static_cast<int>(interval.pitch)};
  return {{N}, {N, options.with_logits ? T : 0, 2}, checkpoints, checkpoints};
}

std::vector<mx::Dtype> saved_dtypes(
    const std::vector<mx::array>& inputs,
    const Options&) {
  if (inputs[0].dtype() == mx::float64) {
    return {mx::float64, mx::float64, mx::float64, mx::int64};
  }
  return {mx::float64, mx::float64, mx::float32, mx::int32};
}

void loss(
    const Options& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  dispatch(stream, inputs, outputs, [options](auto& inputs, auto& outputs) {
    if (outputs[0].dtype() == mx::float64) {
      eval_loss<double>(options, inputs, outputs);
    } else {
      eval_loss<float>(options, inputs, outputs);
    }
  });
}

void gradient(
    const Options& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  dispatch(stream, inputs, outputs, [options](auto& inputs, auto& outputs) {
    if (inputs[0].dtype() == mx::float64) {
      eval_gradient<double>(options, inputs, outputs[0]);
    } else {
      eval_gradient<float>(options, inputs, outputs[0]);
    }
  });
}

} // namespace mlx_ctc::cpu
