// The most probable class of every frame of one sequence, on plain pointers.
// sequence.h says where to look for what.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "lattice/sequence.h"

namespace mlx_ctc::cpu {

// A score above this is no log-probability: so much may be an error of
// rounding. Keep it equal to MOST in mlx_ctc/decoding.py.
constexpr float most_log_prob = 1e-3f;

// Calls f(begin, end) for each run of equal classes in a path (T): a label, or
// blanks. f may write to path[0, end).
template <typename F>
void for_each_run(const int32_t* path, int T, F f) {
  for (int begin = 0, end; begin < T; begin = end) {
    end = begin + 1;
    while (end < T && path[end] == path[begin]) {
      ++end;
    }
    f(begin, end);
  }
}

struct BestPath {
  // Writes the first most probable class of each of the sequence's frames and
  // its log-probability, which is float, or double for double input, `stride`
  // elements apart. Labels are not looked at. It is NaN if a score of the frame
  // is NaN, +inf or, unless it is a logit, above most_log_prob; or if all its
  // logits are -inf.
  void (*find)(
      const Sequence&,
      int32_t* classes,
      void* log_probs,
      int64_t stride,
      std::span<std::byte> workspace);

  // Bytes of workspace.
  size_t (*workspace_bytes)(int classes);
};

const BestPath& best_path(Element element);

} // namespace mlx_ctc::cpu
