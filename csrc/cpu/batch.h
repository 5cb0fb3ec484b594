// A batch as the kernels see it: sequences as plain pointers, every length and
// label checked, spread over the threads. All CPU forms begin here.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/sequence.h"
#include "mlx/array.h"

namespace mlx_ctc::cpu {

namespace mx = mlx::core;

// Over log_probs (T, N, C), targets (N, S), input_lengths (N) and
// target_lengths (N), which have to outlive it.
class Batch {
 public:
  // Throws, as `op`, for a length or label that is out of range.
  Batch(
      const char* op,
      const std::vector<mx::array>& inputs,
      int blank,
      bool with_logits);

  Sequence sequence(int n) const;

  // Runs body(n, workspace) for every sequence, over the threads, each with a
  // workspace of its own that begins on a cache line.
  template <typename Body>
  void for_each_sequence(size_t workspace_bytes, const Body& body) const {
    constexpr size_t line = 64;
    std::vector<std::unique_ptr<std::byte[]>> workspaces(max_threads());
    std::vector<int> order = longest_first();
    std::vector<int> begins = shares(order);
    parallel_for(begins.size() - 1, [&](int64_t k, int worker) {
      auto& workspace = workspaces[worker];
      if (!workspace) {
        workspace.reset(new std::byte[workspace_bytes + line]);
      }
      auto address = reinterpret_cast<uintptr_t>(workspace.get());
      for (int i = begins[k]; i < begins[k + 1]; ++i) {
        body(order[i], workspace.get() + (line - address % line));
      }
    });
  }

  const int T;
  const int N;
  const int C;
  const int S;
  const Element element;

 private:
  std::vector<int32_t>
  read_lengths(const mx::array& lengths, const char* name, int max) const;
  std::vector<int32_t> read_labels(const mx::array& targets) const;

  // The sequences in an order that lets the threads end together.
  std::vector<int> longest_first() const;

  // Where in that order each share of the work begins, and the end. A share is
  // for one thread: sequences side by side have cache lines and pages in
  // common. Shares become smaller, so that the threads end together.
  std::vector<int> shares(const std::vector<int>& order) const;

  const char* op_;
  const mx::array& log_probs_;
  const int blank_;
  const bool with_logits_;
  const std::vector<int32_t> input_lengths_;
  const std::vector<int32_t> target_lengths_;
  const std::vector<int32_t> labels_; // (N, S)
};

} // namespace mlx_ctc::cpu
