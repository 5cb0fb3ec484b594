// The gradient, cotangent * (softmax - gamma), of all frames at once.
//
// A threadgroup computes gamma in one segment from the scan's checkpoints, sums
// it over the labels of each class, and writes the rows of its frames. Since
// the scan has stored what passes between windows, simdgroups take windows in
// turn without waiting for each other.
//
// The body is long because it computes each pointer where it is used. As steps
// with structs made before the recursion, which has 72 registers, the compiler
// moved twice as many values to memory.
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

#include "gammas.h"
#include "last_blank_gammas.h"
#include "likely_row.h"
#include "parts.h"

threadgroup float p_blanks[MAX_SIMDGROUPS][SEGMENT];
threadgroup float p_labels[MAX_SIMDGROUPS][SEGMENT][32];
threadgroup float2 softmax[FRAMES]; // greatest score, cotangent / sum
threadgroup float gammas[FRAMES][CAPACITY]; // of labels, in order of ranks
threadgroup float blank_sums[MAX_SIMDGROUPS][SEGMENT]; // of gamma
threadgroup float label_sums[MAX_SIMDGROUPS][SEGMENT];
threadgroup LikelyLabel likely_labels[MAX_SIMDGROUPS][SEGMENT];
threadgroup FrameSums frame_sums[FRAMES];
threadgroup float gamma_scale[FRAMES]; // -cotangent / sum of gamma

const Threads self = {
    int(threads_per_threadgroup.x),
    int(thread_position_in_threadgroup.x),
    int(simdgroup_index_in_threadgroup),
    int(thread_index_in_simdgroup)};
const int lane = self.lane;
const int simdgroup = self.simdgroup;
const int T = log_probs_shape[0];
const int N = log_probs_shape[1];
const int C = log_probs_shape[2];
const int S = targets_shape[1];
const int blank = options[0];
const int t0 = int(threadgroup_position_in_grid.x) * FRAMES;
const int n =
    int(threadgroup_position_in_grid.y +
        threadgroup_position_in_grid.z * threadgroups_per_grid.y);
if (n >= N) {
  return;
}
const int simdgroups = metal::min(self.simdgroups(), MAX_SIMDGROUPS);
const bool has_windows = simdgroup < simdgroups;

// What the sequence has in the threadgroup's frames, and in their segment.
const int frames_to_write = metal::min(FRAMES, T - t0);
const float weight = cotangent[n * cotangent_strides[0]];
const Extended z_n = extended_from_bits(z[n]);
auto sequence = sequence_of(
    n,
    T,
    input_lengths[n * input_lengths_strides[0]],
    target_lengths[n * target_lengths_strides[0]],
    options[0],
    log_probs,
    log_probs_strides,
    targets,
    targets_strides,
    normalisers);
const WrittenFrames frames =
    written_frames(sequence, z_n, T, t0, weight == 0.0f ? 0 : frames_to_write);
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

// The normalisers of softmax, times the cotangent.
if (self.index < FRAMES) {
  // Frames without a path get exp(0) * 0, invalid ones exp(0) * NaN.
  const float nan = metal::numeric_limits<float>::quiet_NaN();
  float2 frame = {0.0f, self.index < frames.invalid ? nan : 0.0f};
  float rest = 0.0f;
  if (self.index < frames.with_paths) {
    const int64_t at = (int64_t(n) * T + t0 + self.index) * 2;
    rest = LOGITS ? float(normalisers[at + 1]) : 0.0f;
    frame.x = LOGITS ? float(normalisers[at]) : 0.0f;
    frame.y = LOGITS || NORMALIZED ? weight / (1.0f + rest) : 0.0f;
  }
  softmax[self.index] = frame;
  frame_sums[self.index].softmax_rest = rest * frame.y;
}
// The blank's probabilities in the segment.
const int slot = has_windows ? simdgroup : 0; // others do not use it
const GammaMemory memory = {
    &p_blanks[slot][0],
    &p_labels[slot][0][lane],
    &blank_sums[slot][0],
    &label_sums[slot][0],
    &likely_labels[slot][0]};
const auto scores =
    prepare_segment<LOGITS>(segment, has_windows, sequence, memory, lane);
if (has_windows && lane < SEGMENT) {
  memory.likely[lane] = LikelyLabel{0.0f, -1};
}
metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup);

// Almost all targets have one part (parts.h).
for (int part = 0; part < parts_of(S_n, PART); ++part) {
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

  // gamma of the part's windows, which the simdgroups take in turn.
  int window = part_begin / 32 + simdgroup;
  for (; has_windows && window < windows_of(part_end); window += simdgroups) {
    const int i = window * 32 + lane;
    // A lane without a label stores its gammas after those of the part's
    // labels.
    const Label label = label_of(
        labels + int64_t(n) * size_of_labels(S), S_n, blank, i, i - part_begin);
    const LabelGammas label_gammas = {
        offset, offset + FRAMES, &gammas[0][label.rank], CAPACITY};
    if (segment.has_path(window)) {
      add_window<true>(
          label_gammas,
          segment,
          place_of_label(label, S_n, i),
          scores,
          memory,
          z_n,
          window,
          lane);
    } else {
      for (int f = offset; f < offset + FRAMES; ++f) {
        *label_gammas.at(f) = 0.0f;
      }
    }
  }
  // The next simdgroup in turn computes the last blank.
  if (frames.with_paths > 0 && part_end == S_n && has_windows &&
      window == windows_of(S_n)) {
    add_last_blank(segment, scores, memory, z_n, lane);
  }
  metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);

  // Sums over the simdgroups.
  if (self.index < FRAMES) {
    const int f = offset + self.index;
    const float blanks =
        sum_of_simdgroups(&blank_sums[0][0], SEGMENT, f, simdgroups);
    const float labels =
        sum_of_simdgroups(&label_sums[0][0], SEGMENT, f, simdgroups);
    const LikelyLabel likely =
        likely_of_simdgroups(&likely_labels[0][0], SEGMENT, f, simdgroups);
    // gamma of all states sums to 1 in each frame. Dividing by the computed sum
    // removes the rounding errors of alpha, beta_p and z, which grow with the
    // number of frames. With several parts the sum is not known.
    const float divisor = S_n <= PART ? blanks + labels + likely.gamma : 1.0f;
    gamma_scale[self.index] = -weight / divisor;
    blank_sums[0][f] = blanks;
    frame_sums[self.index] =
        FrameSums{labels, likely, frame_sums[self.index].softmax_rest};
  }
  metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);

  // Write the rows of the gradient.
  const int64_t first_element = (int64_t(t0) * N + n) * C;
  const int64_t classes_of_part =
      (int64_t(n) * parts_of(S, PART) + part) * size_of_classes(C);
  Rows<ELEMENT> rows;
  rows.C = C;
  rows.blank = blank;
  rows.count = frames_to_write;
  rows.count_with_paths = frames.with_paths;
  rows.has_softmax = LOGITS || NORMALIZED;
  rows.offset = int(first_element % 32);
  rows.frame_stride = log_probs_strides[0];
  rows.class_stride = log_probs_strides[2];
  rows.gradient = gradient + first_element;
  rows.row_stride = int64_t(N) * C;
  rows.softmax = &softmax[0];
  rows.gammas = &gammas[0][0];
  rows.capacity = CAPACITY;
  rows.blank_gammas = &blank_sums[0][offset];
  rows.gamma_scale = &gamma_scale[0];
  rows.classes = classes + classes_of_part;
  if (part == 0) {
    const auto scores_to_read = sequence.scores + t0 * rows.frame_stride;
    write_rows<FRAMES, SIDE_BY_SIDE, LOGITS>(rows, scores_to_read, self);
    if (rows.has_softmax && S_n <= PART) {
      metal::threadgroup_barrier(metal::mem_flags::mem_device);
      if (self.index < frames.with_paths) {
        const FrameSums sums = frame_sums[self.index];
        write_likely_class<LOGITS>(rows, scores_to_read, self.index, sums);
      }
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
