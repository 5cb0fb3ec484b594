#include "ops/cpu/greedy_cpu.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "lattice/best_path.h"
#include "ops/cpu/batch.h"
#include "ops/cpu/task.h"

namespace mlx_ctc::cpu {

namespace {

// The results of one sequence. At first `labels` has the best path, and
// `probabilities` the log-probabilities of its classes.
template <typename Real>
struct Decoded {
  int32_t* labels; // (T)
  int32_t* count;
  Real* score;
  int32_t* frames; // (T)
  Real* probabilities; // (T)
  int T;
  int blank;

  Decoded(std::vector<mx::array>& outputs, int64_t n, int T, int blank)
      : labels(outputs[0].data<int32_t>() + n * T),
        count(outputs[1].data<int32_t>() + n),
        score(outputs[2].data<Real>() + n),
        frames(outputs[3].data<int32_t>() + n * T),
        probabilities(outputs[4].data<Real>() + n * T),
        T(T),
        blank(blank) {}

  // Equal classes side by side are one label, and blanks none. A NaN leaves no
  // labels.
  void collapse(int length) {
    double sum = 0;
    int S = 0;
    for (int begin = 0, end; begin < length; begin = end) {
      int32_t label = labels[begin];
      double probability = 0;
      for (end = begin; end < length && labels[end] == label; ++end) {
        sum += probabilities[end];
        probability += label != blank ? std::exp(probabilities[end]) : 0;
      }
      if (label != blank) {
        labels[S] = label;
        frames[S] = begin;
        probabilities[S] = probability / (end - begin);
        ++S;
      }
    }
    finish(std::isnan(sum) ? 0 : S, sum);
  }

  void finish(int S, double sum) {
    *count = S;
    *score = sum;
    std::fill(labels + S, labels + T, blank);
    std::fill(frames + S, frames + T, 0);
    std::fill(probabilities + S, probabilities + T, Real(0));
  }
};

// Which rows (C) are read one after the other.
struct Order {
  int64_t task; // frames of all sequences that one thread takes
  int64_t together; // frames of a sequence before those of the next

  // In the order in which they lie in memory, a page or more at a time: the
  // processor fetches ahead within pages.
  Order(const mx::array& log_probs) {
    constexpr int64_t task_bytes = 1 << 18, page_bytes = 1 << 12;
    int64_t row = log_probs.shape(2) * log_probs.itemsize();
    int64_t N = log_probs.shape(1);
    task = std::max<int64_t>(1, task_bytes / std::max<int64_t>(1, N * row));
    bool sequences_inside = log_probs.strides(1) < log_probs.strides(0);
    together = sequences_inside ? std::max<int64_t>(1, page_bytes / row) : task;
  }
};

template <typename Real>
void decode(
    const GreedyOptions& options,
    const Workspaces& workspaces,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  const auto& x = inputs[0];
  Batch batch(inputs, options.blank, options.with_logits);
  auto& kernels = best_path(batch.element);
  auto find = [&](int n, int64_t begin, int64_t end, int64_t thread) {
    Decoded<Real> to(outputs, n, batch.T, options.blank);
    Sequence part = batch.sequence(n);
    end = std::min<int64_t>(end, part.frames);
    if (begin < end) {
      part.log_probs = static_cast<const char*>(part.log_probs) +
          begin * part.frame_stride * int64_t(x.itemsize());
      part.frames = end - begin;
      kernels.find(
          part,
          to.labels + begin,
          to.probabilities + begin,
          workspaces.of(thread));
    }
  };
  Order order(x);
  int64_t tasks = (batch.T + order.task - 1) / order.task;
  parallel_for(workspaces.size(), [&](int64_t thread, int) {
    for (int64_t i = thread; i < tasks; i += workspaces.size()) {
      int64_t end = (i + 1) * order.task;
      for (int64_t t = i * order.task; t < end; t += order.together) {
        for (int n = 0; n < batch.N; ++n) {
          find(n, t, std::min(t + order.together, end), thread);
        }
      }
    }
  });
  for (int n = 0; n < batch.N; ++n) {
    Decoded<Real> decoded(outputs, n, batch.T, options.blank);
    if (batch.is_valid(n)) {
      decoded.collapse(batch.sequence(n).frames);
    } else {
      decoded.finish(0, std::numeric_limits<double>::quiet_NaN());
    }
  }
}

} // namespace

void greedy(
    const GreedyOptions& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  const auto& x = inputs[0];
  auto& kernels = best_path(element_of(x.dtype()));
  size_t bytes = kernels.workspace_bytes(x.shape(2));
  auto workspaces =
      std::make_shared<Workspaces>("greedy_decode", bytes, x, inputs[1]);
  auto task = [options, workspaces](auto& inputs, auto& outputs) {
    bool is_double = inputs[0].dtype() == mx::float64;
    auto run = is_double ? decode<double> : decode<float>;
    run(options, *workspaces, inputs, outputs);
  };
  dispatch(stream, inputs, outputs, options.blank, task);
}

} // namespace mlx_ctc::cpu
