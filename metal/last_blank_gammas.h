// gamma of the last blank (last_blank.h), for the gradient and the posteriors.

#include "last_blank.h"
#include "segment.h"

// Adds gamma of the last blank to a simdgroup's sums of blanks.
template <int SEGMENT, typename Scores>
METAL_FUNC void add_last_blank(GammaTask<SEGMENT, Scores> task, int lane) {
  const Segment<SEGMENT> segment = task.segment;
  const SegmentScores<Scores> scores = task.scores;
  const int window = windows_of(segment.S_n) - 1; // of the last label
  const int f = lane % SEGMENT;
  float gamma = segment.S_n == 0 ? 1.0f : 0.0f;
  if (segment.S_n > 0 && segment.has_path(window)) {
    Levelled before = unreached();
    if (segment.has_alpha(window)) {
      before = levelled_from_bits(segment.alpha[2 * segment.S_n]);
    }
    gamma = last_blank_gamma<SEGMENT>(
        to_extended(before),
        to_extended(segment.edge(alpha_of_label_before, window + 1, f)),
        extended_p_blank(
            task.memory.p_blanks[f],
            scores.of_class(scores.blank) + f * scores.frame_stride,
            scores.scale),
        to_extended(segment.edge(beta_p_of_next_blank, window, f)),
        task.z,
        lane);
  }
  metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup);
  if (lane < SEGMENT) {
    task.memory.blank_sums[lane] += gamma;
  }
}
