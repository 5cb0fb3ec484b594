// gamma of every frame, the blanks summed and the labels one by one, or those
// of each class: a threadgroup rebuilds alpha and w inside one segment from the
// scan's checkpoints, as the gradient does, and writes its frames' rows.
//
// in   log_probs       (T, N, C) any strides
//      targets         (N, S)
//      input_lengths   (N)
//      target_lengths  (N)
//      normalisers, partition, checkpoints, edges, classes, labels, places:
//      see the scan
// out  by_label        (N, T, S + 1), the blank first
//      by_class        (N, T, C) with BY_CLASS
//
// LOGITS, BLANK, BY_CLASS    the op's options
// SEGMENT                    frames between checkpoints
// PART                       labels of a part of classes and places
// MAX_SIMDGROUPS             room for so many in a threadgroup

#include "gammas.h"

const float nan = metal::numeric_limits<float>::quiet_NaN();

threadgroup float p_blank[MAX_SIMDGROUPS][SEGMENT];
threadgroup float p_labels[MAX_SIMDGROUPS][SEGMENT][32];
threadgroup float of_labels[MAX_SIMDGROUPS][SEGMENT][32]; // of a window
threadgroup float blanks[MAX_SIMDGROUPS][SEGMENT]; // their gamma, summed
threadgroup float sums[MAX_SIMDGROUPS][SEGMENT]; // gamma of all states, summed

const int T = log_probs_shape[0];
const int N = log_probs_shape[1];
const int C = log_probs_shape[2];
const int S = targets_shape[1];
const int begin = int(threadgroup_position_in_grid.x) * SEGMENT;
const int n =
    int(threadgroup_position_in_grid.y +
        threadgroup_position_in_grid.z * threadgroups_per_grid.y);
if (n >= N) {
  return;
}
const int threads = int(threads_per_threadgroup.x);
const int simdgroups = threads / 32;
const int thread_index = int(thread_position_in_threadgroup.x);
const int simdgroup = int(simdgroup_index_in_threadgroup);
const int lane = int(thread_index_in_simdgroup);

const int here = metal::min(SEGMENT, T - begin); // frames to write
const Extended z = unpack(partition[n]);
const int input_length = input_lengths[n * input_lengths_strides[0]];
const int target_length = target_lengths[n * target_lengths_strides[0]];
const Contents contents = contents_of(z, input_length, T, begin, here);
const int frames = contents.paths;
const int S_n = frames > 0 ? target_length : 0;
const Segment segment =
    segment_of(n, S, frames > 0 ? input_length : begin, S_n, begin, SEGMENT);
const auto tables = tables_of(
    segment,
    SEGMENT,
    checkpoints,
    checkpoints_shape[1],
    edges,
    edges_shape[2]);
const int64_t item = n * log_probs_strides[1];
const int64_t frame_stride = log_probs_strides[0];
const int64_t class_stride = log_probs_strides[2];
const int64_t first_row = int64_t(n) * T + begin;

const Unit unit = begin_segment<SEGMENT, LOGITS>(
    segment,
    log_probs + item + BLANK * class_stride,
    frame_stride,
    normalisers + int64_t(n) * T * 2,
    &p_blank[simdgroup][0],
    lane);
if (lane < SEGMENT) {
  blanks[simdgroup][lane] = 0.0f;
  sums[simdgroup][lane] = 0.0f;
}
metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup);

const auto emissions = emissions_of(
    log_probs + item + begin * frame_stride,
    frame_stride,
    class_stride,
    BLANK,
    unit);
int window = simdgroup;
for (; window < windows_of(S_n); window += simdgroups) {
  const int i = window * 32 + lane;
  if (!has_path(segment, window)) {
    for (int f = 0; f < frames && i < S_n; ++f) {
      by_label[(first_row + f) * (S + 1) + i + 1] = 0.0f;
    }
    continue;
  }
  const Label label = label_of(labels + int64_t(n) * S, S_n, BLANK, i, S);
  const Place place = place_of_label(label, S_n, i);
  const auto own = &of_labels[simdgroup][0][lane];
  add_window<SEGMENT>(
      wanted(0, SEGMENT, own, 32),
      segment,
      place,
      tables,
      emissions,
      p_blank[simdgroup],
      &p_labels[simdgroup][0][lane],
      z,
      window,
      blanks[simdgroup],
      sums[simdgroup],
      lane);
  for (int f = 0; f < frames && place.has_states; ++f) {
    by_label[(first_row + f) * (S + 1) + i + 1] = own[f * 32];
  }
}
// The simdgroup whose turn it would be has the last blank.
if (frames > 0 && window == windows_of(S_n)) {
  add_last_blank<SEGMENT>(
      segment,
      tables,
      emissions,
      p_blank[simdgroup],
      z,
      blanks[simdgroup],
      sums[simdgroup],
      lane);
}
metal::threadgroup_barrier(
    metal::mem_flags::mem_device | metal::mem_flags::mem_threadgroup);

// A frame's posteriors sum to 1: dividing by their sum takes out the rounding
// that alpha, w and Z have gathered over the whole sequence.
if (thread_index < frames) {
  float of_blanks = 0.0f;
  float of_all = 0.0f;
  for (int k = 0; k < simdgroups; ++k) {
    of_blanks += blanks[k][thread_index];
    of_all += sums[k][thread_index];
  }
  blanks[0][thread_index] = of_blanks / of_all;
  sums[0][thread_index] = 1.0f / of_all;
}
metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
for (int f = 0; f < here; ++f) {
  for (int s = thread_index; s <= S; s += threads) {
    const int64_t at = (first_row + f) * (S + 1) + s;
    float value = f < contents.bad ? nan : 0.0f;
    if (f < frames && s <= S_n) {
      value = s > 0 ? by_label[at] * sums[0][f] : blanks[0][f];
    }
    by_label[at] = value;
  }
}
if (!BY_CLASS) {
  return;
}
metal::threadgroup_barrier(metal::mem_flags::mem_device);

// The places of a class, in order, part by part.
const int parts = parts_of(S_n, PART);
const int64_t listed = int64_t(parts_of(S, PART)) * C;
for (int c = thread_index; c < C; c += threads) {
  float values[SEGMENT];
  for (int f = 0; f < SEGMENT; ++f) {
    values[f] = f < contents.bad ? nan : 0.0f;
    if (c == BLANK && f < frames) {
      values[f] = blanks[0][f];
    }
  }
  for (int part = 0; frames > 0 && part < parts; ++part) {
    const Ranks of_class =
        ranks_of(classes[n * listed + int64_t(part) * C + c]);
    const int64_t part_at = int64_t(n) * S + part * PART;
    for (int rank = of_class.begin; rank < of_class.end; ++rank) {
      const int i = part * PART + int(places[part_at + rank]);
      for (int f = 0; f < frames; ++f) {
        values[f] += by_label[(first_row + f) * (S + 1) + i + 1];
      }
    }
  }
  for (int f = 0; f < here; ++f) {
    by_class[(first_row + f) * C + c] = values[f];
  }
}
