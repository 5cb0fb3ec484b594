// The posteriors gamma of every frame: of all blanks together and of each
// label, or of each class. A threadgroup computes gamma in one segment from the
// scan's checkpoints, as the gradient does, and writes the rows of its frames.
//
// in   log_probs       (T, N, C) any strides
//      targets         (N, S)
//      input_lengths   (N)
//      target_lengths  (N)
//      normalisers     (N, T, 2) of logits; not read for log-probabilities
//      z, checkpoints, edges, classes, labels, label_of_rank: see tables.h
//      options         blank
// out  by_label        (N, T, S + 1), the blank first
//      by_class        (N, T, C), with BY_CLASS
//
// LOGITS, BY_CLASS    options of ctc_posteriors
// SEGMENT             frames between checkpoints
// PART                labels of a part (classes.h)
// MAX_SIMDGROUPS      simdgroups that the threadgroup has memory for

#include "by_class.h"
#include "by_label.h"

threadgroup float p_blanks[MAX_SIMDGROUPS][SEGMENT];
threadgroup float p_labels[MAX_SIMDGROUPS][SEGMENT][32];
threadgroup float label_gammas[MAX_SIMDGROUPS][SEGMENT][32]; // of a window
threadgroup float blank_sums[MAX_SIMDGROUPS][SEGMENT]; // of gamma
threadgroup float label_sums[MAX_SIMDGROUPS][SEGMENT];
threadgroup float blank_gammas[SEGMENT];
threadgroup float gamma_scale[SEGMENT]; // 1 / sum of gamma

#include "sequence_of_grid.inc"
const int lane = self.lane;
const int simdgroup = self.simdgroup;
const int begin = int(threadgroup_position_in_grid.x) * SEGMENT;
const Extended z_n = extended_from_bits(z[n]);
const WrittenFrames frames = written_frames(
    sequence,
    z_n,
    T,
    begin,
    metal::min(SEGMENT, T - begin),
    true);
const auto segment = segment_of<SEGMENT>(
    sequence,
    frames.with_paths > 0,
    begin,
    int64_t(n) * checkpoints_shape[1],
    checkpoints,
    edges,
    S,
    edges_shape[2]);
const GammaMemory memory = {
    &p_blanks[simdgroup][0],
    &p_labels[simdgroup][0][lane],
    &blank_sums[simdgroup][0],
    &label_sums[simdgroup][0]};
const auto scores =
    prepare_segment<LOGITS>(segment, true, sequence, memory, lane);
metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup);

const int64_t first_row = int64_t(n) * T + begin;
const Device<float> rows = by_label + first_row * (S + 1);
write_gammas(
    rows,
    S,
    &label_gammas[simdgroup][0][lane],
    segment,
    scores,
    labels + int64_t(n) * size_of_labels(S),
    memory,
    z_n,
    self);
metal::threadgroup_barrier(
    metal::mem_flags::mem_device | metal::mem_flags::mem_threadgroup);

if (self.index < frames.with_paths) {
  const int f = self.index;
  const GammaSums sums = gamma_sums_of_frame<MAX_SIMDGROUPS, SEGMENT>(
      &blank_sums[0][0], &label_sums[0][0], f, self.simdgroups());
  blank_gammas[f] = sums.blanks / sums.all();
  gamma_scale[f] = 1.0f / sums.all();
}
metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
complete_rows(rows, S, sequence.S_n, frames, blank_gammas, gamma_scale, self);
if (!BY_CLASS) {
  return;
}
metal::threadgroup_barrier(metal::mem_flags::mem_device);
write_by_class<SEGMENT>(
    frames,
    sequence.S_n,
    &blank_gammas[0],
    rows,
    S,
    classes + int64_t(n) * parts_of(S, PART) * size_of_classes(C),
    label_of_rank + int64_t(n) * size_of_labels(S),
    C,
    sequence.blank,
    PART,
    by_class + first_row * C,
    self);
