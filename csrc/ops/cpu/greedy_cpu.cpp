#include "ops/cpu/greedy_cpu.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <span>
#include <vector>

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
    for_each_run(labels, length, [&](int begin, int end) {
      int32_t label = labels[begin];
      double probability = 0;
      for (int t = begin; t < end; ++t) {
        sum += probabilities[t];
        probability += label != blank ? std::exp(probabilities[t]) : 0;
      }
      if (label != blank) {
        labels[S] = label;
        frames[S] = begin;
        probabilities[S] = probability / (end - begin);
        ++S;
      }
    });
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

// Finds the best class of every frame of a batch, in the order in which the
// frames lie in memory.
template <typename Real>
class BestPaths {
 public:
  BestPaths(
      const Batch& batch,
      const mx::array& log_probs,
      std::vector<mx::array>& outputs)
      : batch_(batch),
        find_(best_path(batch.element).find),
        strides_(log_probs.strides()),
        itemsize_(log_probs.itemsize()),
        classes_(outputs[0].data<int32_t>()),
        log_probs_(outputs[4].data<Real>()) {
    for (int n = 0; n < batch.N; ++n) {
      lengths_.push_back(batch.sequence(n).frames);
    }
  }

  // Of frames [begin, end) of all sequences.
  void find(int begin, int end, std::span<std::byte> workspace) const {
    if (batch_.N > 1 && strides_[1] < strides_[0]) {
      for (int t = begin; t < end; ++t) {
        find_side_by_side(t, workspace);
      }
    } else {
      for (int n = 0; n < batch_.N; ++n) {
        int count = std::min(end, lengths_[n]) - begin;
        find_rows(n, begin, count, strides_[0], 1, workspace);
      }
    }
  }

 private:
  // Of frame t of all sequences that have it, neighbours together.
  void find_side_by_side(int t, std::span<std::byte> workspace) const {
    for (int n = 0; n < batch_.N; ++n) {
      int first = n;
      while (n < batch_.N && t < lengths_[n]) {
        ++n;
      }
      find_rows(first, t, n - first, strides_[1], batch_.T, workspace);
    }
  }

  // Of `count` frames, the first of which is frame t of sequence n.
  void find_rows(
      int n,
      int t,
      int count,
      int64_t stride,
      int64_t out_stride,
      std::span<std::byte> workspace) const {
    if (count <= 0) {
      return;
    }
    Sequence rows = batch_.sequence(n);
    rows.log_probs =
        static_cast<const char*>(rows.log_probs) + t * strides_[0] * itemsize_;
    rows.frame_stride = stride;
    rows.frames = count;
    int64_t to = int64_t(n) * batch_.T + t;
    find_(rows, classes_ + to, log_probs_ + to, out_stride, workspace);
  }

  const Batch& batch_;
  decltype(BestPath::find) find_;
  const mx::Strides strides_; // of the scores (T, N, C)
  const int64_t itemsize_;
  std::vector<int> lengths_; // (N)
  int32_t* const classes_; // (N, T)
  Real* const log_probs_; // (N, T)
};

// Frames of all sequences that a thread takes at a time.
int frames_of_task(const mx::array& log_probs) {
  int64_t row = log_probs.shape(2) * int64_t(log_probs.itemsize());
  int64_t frame = std::max<int64_t>(1, log_probs.shape(1) * row);
  return std::max<int64_t>(1, greedy_task_bytes / frame);
}

template <typename Real>
void decode(
    const GreedyOptions& options,
    const Workspaces& workspaces,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  const auto& x = inputs[0];
  Batch batch(inputs, options.blank, options.with_logits);
  BestPaths<Real> paths(batch, x, outputs);
  int64_t each = frames_of_task(x);
  int64_t tasks = (batch.T + each - 1) / each;
  parallel_for(tasks, workspaces.size(), [&](int64_t i, int worker) {
    int64_t end = std::min<int64_t>((i + 1) * each, batch.T);
    paths.find(i * each, end, workspaces.of(worker));
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

Workspaces workspaces_for(const std::vector<mx::array>& inputs) {
  const auto& x = inputs[0];
  auto& kernels = best_path(element_of(x.dtype()));
  size_t bytes = kernels.workspace_bytes(x.shape(2));
  return Workspaces("greedy_decode", bytes, x, inputs[1]);
}

void run(
    const GreedyOptions& options,
    const Workspaces& workspaces,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  bool is_double = inputs[0].dtype() == mx::float64;
  auto of_type = is_double ? decode<double> : decode<float>;
  of_type(options, workspaces, inputs, outputs);
}

} // namespace

void greedy(
    const GreedyOptions& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  auto workspaces = std::make_shared<Workspaces>(workspaces_for(inputs));
  auto task = [options, workspaces](auto& inputs, auto& outputs) {
    run(options, *workspaces, inputs, outputs);
  };
  dispatch(stream, workspaces->size(), inputs, outputs, options.blank, task);
}

void greedy_at_once(
    const GreedyOptions& options,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  for (auto& out : outputs) {
    allocate(out);
    out.set_status(mx::array::Status::available);
  }
  run(options, workspaces_for(inputs), inputs, outputs);
}

} // namespace mlx_ctc::cpu
