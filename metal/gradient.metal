// The gradient, cotangent * (softmax - gamma), of all frames at once.
//
// A threadgroup computes gamma in one segment from the scan's checkpoints, sums
// it over the labels of each class, and writes the rows of its frames. Since
// the scan has stored what passes between windows, simdgroups take windows in
// turn without waiting for each other.
//
// The body has more lines than others, because the steps are repeated for each
// part of a long target, and threadgroup memory has names only here.
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
#include "likely_row.h"
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
const int lane = self.lane;
const int simdgroup = self.simdgroup;
const int t0 = int(threadgroup_position_in_grid.x) * FRAMES;
const int simdgroups = metal::min(self.simdgroups(), MAX_SIMDGROUPS);
const bool has_windows = simdgroup < simdgroups;

// What the sequence has in the threadgroup's frames, and in their segment.
const int frames_to_write = metal::min(FRAMES, T - t0);
const float weight = cotangent[n * cotangent_strides[0]];
const Extended z_n = extended_from_bits(z[n]);
const WrittenFrames frames =
    written_frames(sequence, z_n, T, t0, frames_to_write, weight != 0.0f);
const int S_n = sequence.S_n;

// The threadgroup's frames begin with frame `offset` of the segment.
const int begin = t0 / SEGMENT * SEGMENT;
const int offset = FRAMES == SEGMENT ? 0 : t0 - begin;
const auto segment = segment_of<SEGMENT>(
    sequence,
    frames.with_paths > 0,
    begin,
    int64_t(n) * checkpoints_shape[1],
    checkpoints,
    edges,
    S,
    edges_shape[2]);

if (self.index < FRAMES) {
  const float2 scale = softmax_scale<LOGITS, NORMALIZED>(
      sequence, frames, t0, self.index, weight);
  softmax[self.index] = scale;
}
// The blank's probabilities in the segment.
const int slot = has_windows ? simdgroup : 0; // others do not use it
const GammaMemory memory = {
    &p_blanks[slot][0],
    &p_labels[slot][0][lane],
    &blank_sums[slot][0],
    &label_sums[slot][0]};
const auto scores =
    prepare_segment<LOGITS>(segment, has_windows, sequence, memory, lane);
metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup);

// Almost all targets have one part (parts.h).
const int parts = parts_of<PART, CAPACITY>(S_n);
for (int part = 0; part < parts; ++part) {
  const int part_begin = part * PART;
  const int part_end = metal::min(part_begin + PART, S_n);
  if (part > 0) {
    // After all threads have written the part before.
    metal::threadgroup_barrier(
        metal::mem_flags::mem_device | metal::mem_flags::mem_threadgroup);
    if (has_windows && lane < SEGMENT) {
      memory.blank_sums[lane] = 0.0f;
    }
    metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup);
  }

  if (has_windows) {
    store_gammas<FRAMES, CAPACITY>(
        &gammas[0][0],
        offset,
        part_begin,
        part_end,
        segment,
        scores,
        labels + int64_t(n) * size_of_labels(S),
        memory,
        z_n,
        simdgroup,
        simdgroups,
        lane);
  }
  metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);

  if (self.index < FRAMES) {
    const int f = offset + self.index;
    const GammaSums sums = gamma_sums_of_frame<MAX_SIMDGROUPS, SEGMENT>(
        &blank_sums[0][0], &label_sums[0][0], f, simdgroups);
    // With several parts the sum over all labels is not known.
    gamma_scale[self.index] = -weight / (parts == 1 ? sums.all() : 1.0f);
    blank_sums[0][f] = sums.blanks;
    certain_frames[self.index] = parts == 1 && self.index < frames.with_paths &&
        is_nearly_certain(sums, softmax[self.index].y, weight);
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
      classes +
          (int64_t(n) * parts_of<PART, CAPACITY>(S) + part) *
              size_of_classes(C),
      RowMemory{
          &softmax[0],
          &gammas[0][0],
          CAPACITY,
          &blank_sums[0][offset],
          &gamma_scale[0]});
  if (part == 0) {
    write_rows<FRAMES, SIDE_BY_SIDE, LOGITS>(rows, self);
    // The same in all threads.
    const bool is_uncertain = metal::simd_all(!certain_frames[lane % FRAMES]);
    if (!is_uncertain) {
      metal::threadgroup_barrier(metal::mem_flags::mem_device);
      write_likely_classes<FRAMES, LOGITS>(
          rows,
          &certain_frames[0],
          sequence,
          t0,
          label_of_rank + int64_t(n) * size_of_labels(S),
          self);
    }
  } else {
    subtract_part(
        rows,
        targets + n * targets_strides[0] + part_begin * targets_strides[1],
        targets_strides[1],
        label_of_rank + int64_t(n) * size_of_labels(S) + part_begin,
        part_end - part_begin,
        self);
  }
}
