// What the CPU computes for one sequence, as plain pointers: no MLX, no
// threads.
//
// sequence.cpp is compiled once for each instruction set, into a table of its
// own; kernels() picks the best one that this machine segments.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace mlx_ctc::cpu {

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
// input; `Int` is the integer as wide.
struct Saved {
  void* normalisers; // (frames, 2) Real: max, sum of exp(x - max)
  void* mantissas; // (checkpoints, 2, pitch) Real: alpha of blanks, of labels
  void* exponents; // (checkpoints, 2, pitch) Int
  int64_t pitch; // longest target + 1: a row begins with the first blank
  int segment_frames; // a segment lies between two checkpoints
};

struct Kernels {
  // -log of the sum over all alignments; infinite where there is none, NaN
  // where a NaN or an infinite score was read.
  double (*loss)(const Sequence&, const Saved&, std::span<std::byte> workspace);

  // cotangent * (softmax - gamma) for the sequence's frames. `gradient` is
  // (frames, classes) in the input's type, its frames `gradient_stride` apart.
  void (*gradient)(
      const Sequence&,
      const Saved&,
      double cotangent,
      void* gradient,
      int64_t gradient_stride,
      std::span<std::byte> workspace);

  // gamma for the sequence's frames: `posteriors` is (frames, width) Real. A
  // row has the blanks' sum, then each label's; or what its classes have,
  // `by_class`.
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
