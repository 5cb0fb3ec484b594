// The gradient of a frame's likely class, from what the other classes have.

#include "likely.h"
#include "rows.h"

// Of one frame.
struct FrameSums {
  float labels; // gamma of all labels but the likely one
  LikelyLabel likely;
  float softmax_rest; // of logits: cotangent * (1 - the greatest softmax)
};

// Gamma of a class's labels in a row, but for the likely one.
template <typename Element>
METAL_FUNC float sum_of_unlikely(Rows<Element> rows, int row, Ranks labels) {
  float sum = 0.0f;
#pragma unroll 1
  for (int rank = labels.begin; rank < labels.end; ++rank) {
    const float gamma = rows.gammas[row * rows.capacity + rank];
    sum += gamma > likely_gamma ? 0.0f : gamma;
  }
  return sum;
}

// Writes the element of the row's likely class again, if it is that of the
// greatest logit, or its log-probability is near 0. It is a function of its
// own, after the rows are written, because their loop has no registers left.
template <bool LOGITS, typename Element, typename Scores>
METAL_FUNC void write_likely_class(
    Rows<Element> rows,
    Scores scores, // (FRAMES, C) of the sequence
    int row,
    FrameSums frame) {
  const float blanks = rows.blank_gammas[row];
  const int y = blanks > likely_gamma ? rows.blank : frame.likely.y;
  if (y < 0) {
    return;
  }
  const float score = scores[row * rows.frame_stride + y * rows.class_stride];
  const float2 scale = rows.softmax[row];
  const bool is_certain =
      LOGITS ? score == scale.x : metal::abs(score) <= near_zero;
  if (is_certain) {
    const float same = sum_of_unlikely(rows, row, rows.ranks_of(y));
    const float others =
        (y == rows.blank ? 0.0f : blanks) + (frame.labels - same);
    const float rest =
        LOGITS ? frame.softmax_rest : -expm1_near_zero(score) * scale.y;
    rows.gradient[row * rows.row_stride + y] =
        Element(-metal::fma(others, float(rows.gamma_scale[row]), rest));
  }
}
