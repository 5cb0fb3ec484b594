// The interface of the CPU recursion: what is computed for one sequence, on
// plain pointers. Nothing here knows MLX or threads; csrc/ops/cpu calls it for
// each sequence of a batch.
//
// Where to look for what in csrc/lattice:
//
// - The recursion in its plain form, a loop over the labels of one frame:
//   alpha_step() and beta_step() in extended_segment.h, in numbers of extended
//   range. It is exact for any scores.
// - The same recursion as it is mostly run: the functions of the same names in
//   scaled_segment.h, in doubles, which is faster. exponents.h keeps the
//   doubles in range; a segment whose scores are too far apart goes to
//   extended_segment.h.
// - The walk over the segments, loss, gradient and posteriors: sequence.cpp.
// - The best path of a target: viterbi_pass.h has the recursion, viterbi.cpp
//   the rest. The best class of each frame: best_path.cpp.
// - Input: scores.h and element.h read and write float16, bfloat16, float32 and
//   float64; frames.h says which labels a frame can be at; softmax.h,
//   frame_tile.h and probabilities.h turn scores into probabilities.
// - Output: class_sums.h sums gamma by class, gradient_rows.h writes the rows.
// - States: extended_states.h and scaled_states.h. Memory: workspace.h.
// - Instruction sets: dispatch.cpp.
//
// docs/architecture.md defines the words: alpha, beta_p, z, gamma, segment.
//
// sequence.cpp, viterbi.cpp and best_path.cpp are compiled once for each
// instruction set, each into a table of its own; kernels(), viterbi() and
// best_path() pick the best table that the machine can run.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

namespace mlx_ctc::cpu {

constexpr size_t cache_line = 64; // bytes

constexpr size_t whole_cache_lines(size_t bytes) {
  return (bytes + cache_line - 1) / cache_line * cache_line;
}

// `bytes` from the first cache line in `memory` on, which has cache_line more.
inline std::span<std::byte> on_cache_line(std::byte* memory, size_t bytes) {
  auto address = reinterpret_cast<uintptr_t>(memory);
  return {memory + (cache_line - address % cache_line), bytes};
}

// Frames from one renewal of the exponents (exponents.h) to the next. A segment
// begins with a renewal.
constexpr int renewal_interval = 16;

// At least so many frames, and whole intervals.
constexpr int64_t whole_renewals(int64_t frames) {
  return (frames + renewal_interval - 1) / renewal_interval * renewal_interval;
}

// Frames from one checkpoint to the next with which the memory of checkpoints
// and of a segment's frames together grows only with the square root of T.
inline int64_t square_root_segment(int64_t T) {
  return whole_renewals(std::ceil(std::sqrt(double(T))));
}

struct Sequence {
  const void* log_probs; // (frames, classes), strides in elements
  int64_t frame_stride;
  int64_t class_stride;
  int frames; // input length
  int classes;
  const int32_t* labels; // (target_length)
  int target_length;
  int blank;
  bool with_logits;
};

// What the loss leaves for the gradient. `Real` is float, or double for double
// input; `Int` is the integer of the same width.
struct Saved {
  void* normalisers; // (frames, 2) Real, see Normaliser
  void* mantissas; // (checkpoints, 2, pitch) Real: alpha of blanks, of labels
  void* exponents; // (checkpoints, 2, pitch) Int
  int64_t pitch; // longest target + 1: a row begins with the first blank
  // Frames from one checkpoint to the next, a multiple of renewal_interval.
  int segment_frames;
};

struct Kernels {
  // -log z: infinite if no alignment has a probability above 0, NaN if a score
  // of the blank or of a label, or any logit, is NaN or +inf.
  double (*loss)(const Sequence&, const Saved&, std::span<std::byte> workspace);

  // The same, and if it is finite, gradient() for a cotangent of 1.
  double (*loss_and_gradient)(
      const Sequence&,
      const Saved&,
      bool normalized,
      void* gradient,
      int64_t gradient_stride,
      std::span<std::byte> workspace);

  // cotangent * (softmax - gamma) for all frames, gamma summed by class:
  // equation 16 of Graves et al. Of scores that are not `normalized`, it is
  // -cotangent * gamma, equation 15. `gradient` is (frames, classes) in the
  // input's type, `gradient_stride` elements from frame to frame. Needs a
  // finite loss and at least one frame, as posteriors() does.
  void (*gradient)(
      const Sequence&,
      const Saved&,
      double cotangent,
      bool normalized,
      void* gradient,
      int64_t gradient_stride,
      std::span<std::byte> workspace);

  // gamma for all frames: `posteriors` is (frames, width) Real. A row holds the
  // sum of all blanks and then each label, or with `by_class` each class.
  void (*posteriors)(
      const Sequence&,
      const Saved&,
      bool by_class,
      void* posteriors,
      int64_t width,
      std::span<std::byte> workspace);

  // Bytes of workspace that any of them may use, for a sequence of at most
  // `max_target_length` labels. A workspace begins on a cache line.
  size_t (
      *workspace_bytes)(int classes, int max_target_length, int segment_frames);
};

enum class Element { float16, bfloat16, float32, float64 };

const Kernels& kernels(Element element);

} // namespace mlx_ctc::cpu
