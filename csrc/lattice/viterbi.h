// The most probable alignment of one sequence, on plain pointers. sequence.h
// says where to look for what.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "lattice/sequence.h"

namespace mlx_ctc::cpu {

struct Viterbi {
  // Writes the class and its log-probability for each of the sequence's frames.
  // `scores` is float, or double for double input. If no alignment has a
  // probability above 0, the classes are the blank and the scores -inf; if a
  // score that was read is NaN or +inf, the scores are NaN. The result does not
  // depend on segment_frames.
  void (*align)(
      const Sequence&,
      int segment_frames,
      int32_t* alignment,
      void* scores,
      std::span<std::byte> workspace);

  // Bytes of workspace for a sequence of at most so many frames and labels.
  size_t (*workspace_bytes)(
      int frames,
      int classes,
      int max_target_length,
      int segment_frames);
};

const Viterbi& viterbi(Element element);

// Frames from one checkpoint to the next, F, for a batch of at most T frames
// and S labels. A table of moves for all frames is written once and read once:
// as long as a cache holds it, it is faster than to run the recursion twice.
// Beyond that F makes the memory least: 16 bytes for each of S + 1 pairs at T /
// F checkpoints, and the moves of one segment, F^2 / 2 bytes, as a path can be
// in F pairs there.
inline int viterbi_segment_frames(int frames, int target_length) {
  constexpr double cached = 16 << 20; // bytes, half a byte for a frame and pair
  double table = double(frames) * (target_length + 1);
  return table / 2 <= cached ? std::max(1, frames) : int(std::cbrt(16 * table));
}

} // namespace mlx_ctc::cpu
