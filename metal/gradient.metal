// The gradient, cotangent * (softmax - gamma), of all frames at once.
//
// A threadgroup computes gamma in one segment from the scan's checkpoints, sums
// it over the labels of each class, and writes the rows of its frames. Since
// the scan has stored what passes between windows, simdgroups take windows in
// turn without waiting for each other.
//
// The body has more than 60 lines, because parameters and threadgroup memory
// have names only here, and long targets repeat the steps for each part.
//
// in   log_probs       (T, N, C) any strides
//      targets         (N, S)
//      input_lengths   (N)
//      target_lengths  (N)
//      cotangent       (N)
//      normalisers     (N, T, 2) of logits; not read for log-probabilities
//      z, checkpoints, edges, classes, labels, label_of_rank: see tables.h
//      options         blank
// out  gradient        (T, N, C)
//
// LOGITS           option of ctc_loss
// NORMALIZED       option of ctc_loss: whether gamma is subtracted from softmax
// ELEMENT          type of the gradient
// SEGMENT          frames between checkpoints
// FRAMES           frames that a threadgroup writes; divides SEGMENT
// SIDE_BY_SIDE     rows written at once; if several, they have no more classes
//                  together than there are threads
// PART             labels of a part (classes.h), a multiple of 32
// CAPACITY         labels of a part that can have gammas: PART, or less if no
//                  target of the batch is so long
// MAX_SIMDGROUPS   simdgroups that compute gammas; others only write rows

#include "gradient_steps.h"
#include "parts.h"

threadgroup float p_blanks[MAX_SIMDGROUPS][SEGMENT];
threadgroup float p_labels[MAX_SIMDGROUPS][SEGMENT][32];
threadgroup float2 softmax[FRAMES]; // greatest score, cotangent / sum
threadgroup float gammas[FRAMES][CAPACITY]; // of labels, in order of ranks
threadgroup float blank_sums[MAX_SIMDGROUPS][SEGMENT]; // of gamma
threadgroup float label_sums[MAX_SIMDGROUPS][SEGMENT];
threadgroup float gamma_scale[FRAMES]; // -cotangent / sum of gamma
threadgroup bool certain_frames[FRAMES]; // nearly (likely_row.h)

#include "sequence_of_grid.inc"
const float weight = cotangent[n * cotangent_strides[0]];
const Extended z_n = extended_from_bits(z[n]);
const ClassTables tables = class_tables_of(
    n,
    parts_of<PART, CAPACITY>(S),
    C,
    S,
    classes,
    labels,
    label_of_rank);

// The threadgroup's frames begin with t0, and with frame `offset` of a segment.
const int t0 = int(threadgroup_position_in_grid.x) * FRAMES;
const int begin = t0 / SEGMENT * SEGMENT;
const int offset = FRAMES == SEGMENT ? 0 : t0 - begin;
const WrittenFrames frames = written_frames(
    sequence,
    z_n,
    T,
    t0,
    metal::min(FRAMES, T - t0),
    weight != 0.0f);
const auto stored = stored_states_of<SEGMENT>(
    n,
    checkpoints_shape[1],
    edges_shape[2] - 1,
    S,
    checkpoints,
    edges);
const auto segment =
    segment_of<SEGMENT>(sequence, frames.with_paths > 0, begin, stored);
if (self.index < FRAMES) {
  const float2 scale = softmax_scale<LOGITS, NORMALIZED>(
      sequence, frames, t0, self.index, weight);
  softmax[self.index] = scale;
}

const int simdgroups = metal::min(self.simdgroups(), MAX_SIMDGROUPS);
const bool has_windows = self.simdgroup < simdgroups;
const int slot = has_windows ? self.simdgroup : 0; // others do not use it
const GammaMemory memory = {
    &p_blanks[slot][0],
    &p_labels[slot][0][self.lane],
    &blank_sums[slot][0],
    &label_sums[slot][0]};
const auto task = gamma_task_of<LOGITS>(
    sequence,
    segment,
    z_n,
    memory,
    has_windows,
    self.lane);
const RowMemory row_memory = {
    &softmax[0],
    &gammas[0][0],
    CAPACITY,
    &blank_sums[0][offset],
    &gamma_scale[0],
    &certain_frames[0]};

// Almost all targets have one part (parts.h).
const int parts = parts_of<PART, CAPACITY>(sequence.S_n);
for (int p = 0; p < parts; ++p) {
  const Part part = part_of(p, PART, sequence.S_n);
  if (p > 0) {
    begin_next_part(memory.blank_sums, has_windows, SEGMENT, self.lane);
  }
  if (has_windows) {
    store_gammas<FRAMES, CAPACITY>(
        &gammas[0][0],
        offset,
        part,
        task,
        tables.labels,
        self.simdgroup,
        simdgroups,
        self.lane);
  }
  metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
  if (self.index < FRAMES) {
    finish_sums<MAX_SIMDGROUPS, SEGMENT>(
        row_memory,
        &blank_sums[0][0],
        &label_sums[0][0],
        simdgroups,
        self.index,
        offset + self.index,
        self.index < frames.with_paths,
        parts == 1,
        weight);
  }
  metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);

  const auto rows = rows_of<ELEMENT>(
      sequence,
      frames,
      LOGITS || NORMALIZED,
      n,
      log_probs_shape[1],
      C,
      t0,
      gradient,
      tables.classes_of_part(p),
      row_memory);
  if (p == 0) {
    write_rows<FRAMES, SIDE_BY_SIDE, LOGITS>(rows, self);
    write_likely_classes<FRAMES, LOGITS>(
        rows, sequence, t0, tables.label_of_rank, self);
  } else {
    subtract_part(rows, sequence, part, tables.label_of_rank, self);
  }
}
