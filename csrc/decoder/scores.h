// The log-probabilities that are decoded, on plain pointers.
#pragma once

#include <cstdint>

namespace mlx_ctc {

// log_probs (T, N, C). The classes of a frame lie side by side; strides are in
// elements.
struct Scores {
  const void* data; // float or double
  bool is_double;
  int64_t classes;
  int64_t frame_stride;
  int64_t sequence_stride;
};

// The frames (T, C) of one sequence.
template <typename Real>
struct Frames {
  const Real* data;
  int64_t stride;
  int T;
  int C;

  const Real* operator[](int64_t t) const {
    return data + t * stride;
  }
};

// Those of sequence n, of so many frames.
template <typename Real>
Frames<Real> frames_of(const Scores& scores, int64_t n, int length) {
  auto data = static_cast<const Real*>(scores.data);
  return {
      data + n * scores.sequence_stride,
      scores.frame_stride,
      length,
      int(scores.classes)};
}

} // namespace mlx_ctc
