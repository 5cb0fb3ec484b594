// The most probable alignment of one sequence, on plain pointers. sequence.h
// says where to look for what.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "lattice/sequence.h"

namespace mlx_ctc::cpu {

struct Viterbi {
  // Writes the class and its log-probability for each of the sequence's frames.
  // `scores` is float, or double for double input. If no alignment has a
  // probability above 0, the classes are the blank and the scores -inf; if a
  // score that was read is NaN or +inf, the scores are NaN.
  void (*align)(
      const Sequence&,
      int32_t* alignment,
      void* scores,
      std::span<std::byte> workspace);

  // Bytes of workspace for a sequence of at most so many frames and labels.
  size_t (*workspace_bytes)(int frames, int classes, int max_target_length);
};

const Viterbi& viterbi(Element element);

} // namespace mlx_ctc::cpu
