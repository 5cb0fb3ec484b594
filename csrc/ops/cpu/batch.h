// A batch as the kernels see it: sequences as plain pointers, every length and
// label checked, spread over the threads. All CPU forms begin here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lattice/sequence.h"
#include "mlx/array.h"
#include "mlx/stream.h"
#include "system/parallel.h"

namespace mlx_ctc::cpu {

namespace mx = mlx::core;

Element element_of(mx::Dtype dtype);

// Memory for the threads that work on a batch, made before its task is queued:
// where there is not enough, the evaluation raises an error.
class Workspaces {
 public:
  // `bytes` for each thread, for a batch of log_probs (T, N, C) and targets
  // (N, S). There are as many threads as suit work that takes as long as the
  // batch's loss `losses` times. If there is not enough memory for all of them,
  // one thread does all the work.
  Workspaces(
      const std::string& op,
      size_t bytes,
      const mx::array& log_probs,
      const mx::array& targets,
      int losses = 1);

  // The same for a task on the stream, whose tasks run one after the other: if
  // those that are queued have such memory, this one shares it.
  static std::shared_ptr<Workspaces> on(
      mx::Stream stream,
      const std::string& op,
      size_t bytes,
      const mx::array& log_probs,
      const mx::array& targets,
      int losses = 1);

  // How many threads work on the batch.
  int size() const {
    return threads_;
  }

  // A worker's memory, which begins on a cache line.
  std::span<std::byte> of(int worker) const {
    std::byte* first = on_cache_line(memory_.get(), 0).data();
    return {first + worker * bytes_, bytes_};
  }

 private:
  const size_t bytes_; // for each thread, in whole cache lines
  int threads_ = 0;
  // (threads_, bytes_) from a cache line on. In one piece: malloc gives many of
  // a megabyte back to the system in every step.
  std::unique_ptr<std::byte[]> memory_;
};

// Over log_probs (T, N, C), targets (N, S), input_lengths (N) and
// target_lengths (N), which have to outlive it.
class Batch {
 public:
  Batch(
      const std::vector<mx::array>& inputs,
      int blank,
      bool with_logits,
      bool blank_is_label = true);

  // False for a sequence with a length or a label that is out of range, or with
  // the blank as a label where that is not one. Its results are NaN.
  bool is_valid(int n) const {
    return is_valid_[n];
  }

  // Without frames and labels, unless it is valid.
  Sequence sequence(int n) const;

  // Runs body(n, workspace) for every sequence, over the threads.
  template <typename Body>
  void for_each_sequence(const Workspaces& workspaces, const Body& body) const {
    int threads = workspaces.size();
    Order order(*this, threads);
    parallel_for(order.shares.size() - 1, threads, [&](int64_t k, int worker) {
      auto [begin, end] = std::pair(order.shares[k], order.shares[k + 1]);
      for (int64_t i = begin; i < end; ++i) {
        if (i + 1 < end) {
          fetch_first_scores(order.sequences[i + 1]);
        }
        body(order.sequences[i], workspaces.of(worker));
      }
    });
  }

  const int T;
  const int N;
  const int C;
  const int S;
  const Element element;

 private:
  void read_lengths(const mx::array& input, const mx::array& target);
  void read_labels(const mx::array& targets, bool blank_is_label);

  // In which order the threads take the sequences.
  struct Order {
    Order(const Batch& batch, int threads);

    std::vector<int> sequences; // (N)
    // Where in `sequences` each share begins, and the end. A share is for one
    // thread: sequences side by side have cache lines and pages in common.
    std::vector<int64_t> shares;
  };

  // Prefetches the scores of sequence n's first frames. In a training step they
  // are in no cache. Those of its other frames are prefetched while the frames
  // before them are read.
  void fetch_first_scores(int n) const;

  const mx::array& log_probs_;
  const int blank_;
  const bool with_logits_;
  std::vector<char> is_valid_; // (N)
  std::vector<int32_t> input_lengths_; // (N), 0 where not valid
  std::vector<int32_t> target_lengths_; // (N), 0 where not valid
  std::vector<int32_t> labels_; // (N, S)
};

} // namespace mlx_ctc::cpu
