// What the plan of a step depends on: the shapes and the options of a call.
#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>

#include "gpu/launch.h"

namespace mlx_ctc::gpu {

// Threads of a simdgroup (Metal) or warp (CUDA).
constexpr int simdgroup_width = 32;

// Metal's limit of 32 KiB, less what the gradient needs beside gamma and the
// probabilities: up to 976 bytes.
constexpr int threadgroup_bytes = 32768 - 1024;

// Labels that are held in threadgroup memory at once. The gamma of one frame
// takes 4 bytes for each: 24 KiB. Longer targets are taken in parts.
constexpr int part_labels = 6144;

// Sequences of a batch. A launch counts its threads along an axis by an int,
// and a sequence has up to 1024 there.
constexpr int max_sequences = (1 << 21) - 1;

// Simdgroups of a threadgroup of the gradient and the posteriors. They take the
// windows of a segment in turn, and each needs threadgroup memory for its own
// probabilities.
constexpr int max_segment_simdgroups = 4;

constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// The least power of two that is at least `wanted`, or `most` if that is less.
constexpr int ceil_power_of_two(int64_t wanted, int most) {
  int power = 1;
  while (power < wanted && power < most) {
    power *= 2;
  }
  return std::min(power, most);
}

// The greatest power of two that is at most `wanted` and at most `most`; 1 if
// there is none.
constexpr int floor_power_of_two(int64_t wanted, int most) {
  int power = 1;
  while (2 * power <= std::min<int64_t>(wanted, most)) {
    power *= 2;
  }
  return power;
}

struct Problem {
  int T; // frames
  int N; // sequences
  int C; // classes
  int S; // labels of the longest target
  Type type; // of log_probs
  int blank;
  bool with_logits;
  bool zero_infinity = false;
  bool normalized = true; // for the gradient of log-probabilities
  bool by_class = false; // posteriors of classes, not of labels
  Backend backend;

  auto operator<=>(const Problem&) const = default;

  bool is_empty() const {
    return T == 0 || N == 0 || C == 0;
  }

  // Log-probabilities have no softmax normalisers.
  bool has_normalisers() const {
    return with_logits && T > 0;
  }

  // Whether there are so many classes that, for a confident sequence, only the
  // normalisers of those frames are computed again in which paths have much
  // (has_alternatives in metal/frame_sums.h). With fewer classes all are, which
  // takes less than finding out.
  bool has_many_classes() const {
    return with_logits && C >= 256;
  }

  // Windows of 32 pairs of states: a blank and the label after it.
  int windows() const {
    return std::max<int>(ceil_div(S, simdgroup_width), 1);
  }

  // Windows that one threadgroup of a scan takes at once, each with two
  // simdgroups. Metal refuses a launch with more threads than the GPU has
  // registers for, and what its compiler uses is not known before. An M1 or M2
  // has the most that a thread can use, 128, for 384 threads.
  int max_scan_windows() const {
    return backend == Backend::cuda ? 16 : 6;
  }

  // Frames between two checkpoints. The work around a segment costs as much as
  // 8 of its frames, so longer segments are faster. They are limited by the
  // scan, which has the probabilities of two segments in threadgroup memory,
  // and by the gradient, which has those of one there and a blank's alpha in
  // registers.
  int segment_frames() const {
    int most = backend == Backend::cuda ? 8 : 4; // windows
    return windows() <= most ? 16 : 8;
  }

  int segments() const {
    return std::max<int>(ceil_div(T, segment_frames()), 1);
  }

  // Whether the factors of a confident sequence's z are computed by a launch of
  // their own, on the whole GPU, and not by one threadgroup per sequence. For
  // small problems the host's time for another launch is longer.
  bool has_factors() const {
    return segments() > 2 * max_scan_windows() || (with_logits && C >= 1024);
  }
};

} // namespace mlx_ctc::gpu
