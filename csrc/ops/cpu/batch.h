// A batch as the kernels see it: sequences as plain pointers, every length and
// label checked, spread over the threads. All CPU forms begin here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lattice/sequence.h"
#include "mlx/array.h"
#include "system/parallel.h"

namespace mlx_ctc::cpu {

namespace mx = mlx::core;

Element element_of(mx::Dtype dtype);

// Memory for the threads that work on a batch, made before its task is queued:
// where there is not enough, the evaluation raises an error.
class Workspaces {
 public:
  // `bytes` for each thread, for a batch of log_probs (T, N, C) and targets
  // (N, S). Where not all threads can have them, one thread does all the work.
  Workspaces(
      const std::string& op,
      size_t bytes,
      const mx::array& log_probs,
      const mx::array& targets);

  // For how many threads there is memory.
  int size() const {
    return threads_.size();
  }

  bool is_single() const {
    return size() == 1;
  }

  // A worker's memory, which begins on a cache line.
  std::span<std::byte> of(int worker) const {
    return on_cache_line(threads_[worker].get(), bytes_);
  }

 private:
  const size_t bytes_; // for each thread
  std::vector<std::unique_ptr<std::byte[]>> threads_;
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
    std::vector<int> order = longest_first();
    if (workspaces.is_single()) {
      for (int n : order) {
        body(n, workspaces.of(0));
      }
      return;
    }
    std::vector<int> begins = shares(order);
    parallel_for(begins.size() - 1, [&](int64_t k, int worker) {
      for (int i = begins[k]; i < begins[k + 1]; ++i) {
        body(order[i], workspaces.of(worker));
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

  // The sequences in an order that lets the threads end together.
  std::vector<int> longest_first() const;

  // Where in that order each share of the work begins, and the end. A share is
  // for one thread: sequences side by side have cache lines and pages in
  // common. Shares become smaller, so that the threads end together.
  std::vector<int> shares(const std::vector<int>& order) const;

  const mx::array& log_probs_;
  const int blank_;
  const bool with_logits_;
  std::vector<char> is_valid_; // (N)
  std::vector<int32_t> input_lengths_; // (N), 0 where not valid
  std::vector<int32_t> target_lengths_; // (N), 0 where not valid
  std::vector<int32_t> labels_; // (N, S)
};

} // namespace mlx_ctc::cpu
