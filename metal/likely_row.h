// The gradient of a frame's likely class, from what the other classes have.
//
// If softmax and gamma of a class are both near 1, their difference is less
// than their rounding. It is also the difference of what the other classes have
// of gamma and of softmax:
//
//   softmax - gamma = (1 - gamma) - (1 - softmax)
//
// So gamma is summed without the class's own, and 1 - softmax without the
// greatest exponential (softmax_sum.h).

#include "gammas.h"
#include "rows.h"
#include "sequence.h"

constant constexpr float likely_part = 0.75f;

// Whether a frame may have such a class: the blanks together or the labels
// together have most of gamma, and the greatest logit most of softmax, which is
// scale / cotangent for it.
METAL_FUNC bool
is_nearly_certain(GammaSums sums, float scale, float cotangent) {
  return metal::max(sums.blanks, sums.labels) > likely_part &&
      metal::abs(scale) > likely_part * metal::abs(cotangent);
}

// Lanes that share a row in the functions below: they take its labels in turn.
constant constexpr int row_lanes = 8;

// The rank of the label with the greatest gamma; the first of several.
METAL_FUNC int rank_of_greatest(Shared<float> gammas, int labels, int lane) {
  float greatest = 0.0f;
  int first = labels;
#pragma unroll 1
  for (int rank = lane % row_lanes; rank < labels; rank += row_lanes) {
    const float gamma = gammas[rank];
    first = gamma > greatest ? rank : first;
    greatest = metal::max(gamma, greatest);
  }
  for (int step = 1; step < row_lanes; step *= 2) {
    const float gamma = metal::simd_shuffle_xor(greatest, step);
    const int rank = metal::simd_shuffle_xor(first, step);
    first = gamma > greatest ? rank
        : gamma == greatest  ? metal::min(rank, first)
                             : first;
    greatest = metal::max(gamma, greatest);
  }
  return first;
}

// Gamma of all labels but those of one class.
METAL_FUNC float
sum_of_others(Shared<float> gammas, int labels, Ranks of_class, int lane) {
  float sum = 0.0f;
#pragma unroll 1
  for (int rank = lane % row_lanes; rank < labels; rank += row_lanes) {
    const bool is_other = rank < of_class.begin || rank >= of_class.end;
    sum += is_other ? gammas[rank] : 0.0f;
  }
  for (int step = 1; step < row_lanes; step *= 2) {
    sum += metal::simd_shuffle_xor(sum, step);
  }
  return sum;
}

// Writes the elements of likely classes again, each if it is that of the
// greatest logit, or its log-probability is near 0. Called by all threads of a
// threadgroup after the rows are written, whose loop has no registers left.
// Most threadgroups have no nearly certain frame, and return at once.
template <
    int FRAMES,
    bool LOGITS,
    typename Element,
    typename Scores,
    typename Sequence>
METAL_FUNC void write_likely_classes(
    Rows<Element, Scores> rows,
    thread const Sequence& sequence,
    int t0, // frame of the first row
    Device<const uint16_t> label_of_rank, // of the sequence
    Threads self) {
  const int lane = self.lane;
  const Shared<bool> certain_frames = rows.memory.certain_frames;
  // The same in all threads.
  if (metal::simd_all(!certain_frames[lane % FRAMES])) {
    return;
  }
  metal::threadgroup_barrier(metal::mem_flags::mem_device);
#pragma unroll 1
  for (int first = self.simdgroup * 32; first < FRAMES * row_lanes;
       first += self.count) {
    const int row = metal::min((first + lane) / row_lanes, FRAMES - 1);
    const bool is_candidate = certain_frames[row];
    const int labels = is_candidate ? sequence.S_n : 0;
    const Shared<float> gammas = rows.memory.gammas_of(row);
    const float blanks = rows.memory.blank_gammas[row];
    const int rank = rank_of_greatest(gammas, labels, lane);
    int y = rows.blank;
    float score = 0.0f;
    if (is_candidate) {
      if (blanks <= likely_part) {
        y = sequence.class_of_label(label_of_rank[rank]);
      }
      score = *rows.score(row, y);
    }
    const float2 scale = rows.memory.softmax[row];
    const bool is_certain = is_candidate &&
        (LOGITS ? score == scale.x : metal::abs(score) <= near_zero);
    if (metal::simd_all(!is_certain)) {
      continue;
    }
    const float of_labels =
        sum_of_others(gammas, labels, rows.ranks_of(y), lane);
    if (is_certain && lane % row_lanes == 0) {
      const float others = of_labels + (y == rows.blank ? 0.0f : blanks);
      const float rest =
          LOGITS ? sequence.softmax_rest(t0 + row) : -expm1_near_zero(score);
      *rows.element(row, y) = Element(-metal::fma(
          others, float(rows.memory.gamma_scale[row]), rest * scale.y));
    }
  }
}
