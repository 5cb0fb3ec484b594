// The posteriors gamma of every frame: of all blanks together and of each
// label, or of each class. A threadgroup computes gamma in one segment from the
// scan's checkpoints, as the gradient does, and writes the rows of its frames.
//
// The body has more than 60 lines, because parameters and threadgroup memory
// have names only here, and rows by label and by class are written differently.
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
const Extended z_n = extended_from_bits(z[n]);
const ClassTables tables =
    class_tables_of(n, parts_of(S, PART), C, S, classes, labels, label_of_rank);

const int begin = int(threadgroup_position_in_grid.x) * SEGMENT;
const WrittenFrames frames = written_frames(
    sequence,
    z_n,
    T,
    begin,
    metal::min(SEGMENT, T - begin),
    true);
const auto stored = stored_states_of<SEGMENT>(
    n,
    checkpoints_shape[1],
    edges_shape[2] - 1,
    S,
    checkpoints,
    edges);
const auto segment =
    segment_of<SEGMENT>(sequence, frames.with_paths > 0, begin, stored);
const GammaMemory memory = {
    &p_blanks[self.simdgroup][0],
    &p_labels[self.simdgroup][0][self.lane],
    &blank_sums[self.simdgroup][0],
    &label_sums[self.simdgroup][0]};
const auto task =
    gamma_task_of<LOGITS>(sequence, segment, z_n, memory, true, self.lane);

const int64_t first_row = int64_t(n) * T + begin;
const Device<float> rows = by_label + first_row * (S + 1);
write_gammas(
    rows,
    S,
    &label_gammas[self.simdgroup][0][self.lane],
    task,
    tables.labels,
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
    tables,
    sequence.blank,
    PART,
    by_class + first_row * C,
    self);
