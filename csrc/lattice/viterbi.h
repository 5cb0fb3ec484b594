// The most probable alignment of one sequence, as plain pointers: no MLX, no
// threads.
//
// viterbi.cpp is compiled once for each instruction set, like sequence.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "lattice/sequence.h"

namespace mlx_ctc::cpu {

struct Viterbi {
  // Writes the class and the log-probability of each of the sequence's frames.
  // `scores` is float, or double for double input. Where there is no alignment
  // the classes are the blank and the scores -inf; where a NaN or an infinite
  // score was read, NaN.
  void (*align)(
      const Sequence&,
      int32_t* alignment,
      void* scores,
      std::span<std::byte> workspace);

  size_t (*workspace_bytes)(int frames, int classes, int max_target_length);
};

const Viterbi& viterbi(Element element);

} // namespace mlx_ctc::cpu
