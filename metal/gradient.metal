// The gradient, cotangent * (softmax - gamma), of all frames at once.
//
// A threadgroup rebuilds alpha and w inside one segment from the scan's
// checkpoints, sums gamma over the places of each class in order, and writes
// its frames' rows.
//
// A simdgroup needs nothing from its neighbours, since the scan has left what
// passes between windows: it takes windows in turn, on its own. A target longer
// than PART labels is done in parts, and all but the first subtract their gamma
// from what is already written.
//
// in   log_probs       (T, N, C) any strides
//      targets         (N, S)
//      input_lengths   (N)
//      target_lengths  (N)
//      cotangent       (N)
//      normalisers, partition, checkpoints, edges, classes, labels, places:
//      see the scan
// out  gradient        (T, N, C)
//
// LOGITS, BLANK    the op's options
// ELEMENT          the gradient's type
// SEGMENT          frames between checkpoints
// FRAMES           frames that a threadgroup writes; divides SEGMENT
// SIDE_BY_SIDE     rows written at once; if several, of at most as many classes
//                  together as there are threads
// PART             labels of a part, a multiple of 32
// CAPACITY         room for a part's gamma: PART, or less for a short target
// MAX_SIMDGROUPS   so many have windows at most; others only write

#include "gammas.h"
#include "rows.h"

const float nan = metal::numeric_limits<float>::quiet_NaN();

threadgroup float p_blank[MAX_SIMDGROUPS][SEGMENT];
threadgroup float p_labels[MAX_SIMDGROUPS][SEGMENT][32];
threadgroup float2 softmax[FRAMES]; // the greatest score, cotangent / sum
threadgroup float gamma_scale[FRAMES];
threadgroup float gammas[FRAMES][CAPACITY]; // of labels, by class
threadgroup float blank_gammas[MAX_SIMDGROUPS][SEGMENT];
threadgroup float frame_gammas[MAX_SIMDGROUPS][SEGMENT]; // of all states

const int T = log_probs_shape[0];
const int N = log_probs_shape[1];
const int C = log_probs_shape[2];
const int S = targets_shape[1];
const int t0 = int(threadgroup_position_in_grid.x) * FRAMES;
const int n =
    int(threadgroup_position_in_grid.y +
        threadgroup_position_in_grid.z * threadgroups_per_grid.y);
if (n >= N) {
  return;
}
const int threads = int(threads_per_threadgroup.x);
const int working = metal::min(threads / 32, MAX_SIMDGROUPS); // simdgroups
const int thread_index = int(thread_position_in_threadgroup.x);
const int simdgroup = int(simdgroup_index_in_threadgroup);
const int lane = int(thread_index_in_simdgroup);

const int here = metal::min(FRAMES, T - t0); // frames to write
const float weight = cotangent[n * cotangent_strides[0]];
const Extended z = unpack(partition[n]);
const int input_length = input_lengths[n * input_lengths_strides[0]];
const int target_length = target_lengths[n * target_lengths_strides[0]];
const Contents contents =
    contents_of(z, input_length, T, t0, weight == 0.0f ? 0 : here);
const int count = contents.paths;
const int S_n = count > 0 ? target_length : 0;

const int64_t item = n * log_probs_strides[1];
const int64_t frame_stride = log_probs_strides[0];
const int64_t class_stride = log_probs_strides[2];
const int64_t target = n * targets_strides[0];
const int64_t listed = int64_t(parts_of(S, PART)) * C;

// The segment's frames, and where this threadgroup's begin among them.
const int begin = t0 / SEGMENT * SEGMENT;
const int own = FRAMES == SEGMENT ? 0 : t0 - begin;
const Segment segment =
    segment_of(n, S, count > 0 ? input_length : begin, S_n, begin, SEGMENT);
const auto tables = tables_of(
    segment,
    SEGMENT,
    checkpoints,
    checkpoints_shape[1],
    edges,
    edges_shape[2]);
if (thread_index < FRAMES) {
  // exp(0) * scale where no path is.
  float2 frame = float2{0.0f, thread_index < contents.bad ? nan : 0.0f};
  if (thread_index < count) {
    const int64_t at = (int64_t(n) * T + t0 + thread_index) * 2;
    frame.x = LOGITS ? float(normalisers[at]) : 0.0f;
    frame.y = LOGITS ? weight * float(normalisers[at + 1]) : weight;
  }
  softmax[thread_index] = frame;
}
Unit unit = {0.0f, 0};
if (simdgroup < working) {
  unit = begin_segment<SEGMENT, LOGITS>(
      segment,
      log_probs + item + BLANK * class_stride,
      frame_stride,
      normalisers + int64_t(n) * T * 2,
      &p_blank[simdgroup][0],
      lane);
  if (lane < SEGMENT) {
    blank_gammas[simdgroup][lane] = 0.0f;
    frame_gammas[simdgroup][lane] = 0.0f;
  }
}
metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup);

const auto emissions = emissions_of(
    log_probs + item + begin * frame_stride,
    frame_stride,
    class_stride,
    BLANK,
    unit);
for (int part = 0; part < parts_of(S_n, PART); ++part) {
  const int part_begin = part * PART;
  const int part_end = metal::min(part_begin + PART, S_n);
  const int64_t classes_at = n * listed + int64_t(part) * C;
  if (part > 0) { // all have written the part before
    metal::threadgroup_barrier(
        metal::mem_flags::mem_device | metal::mem_flags::mem_threadgroup);
    if (simdgroup < working && lane < SEGMENT) {
      blank_gammas[simdgroup][lane] = 0.0f;
    }
    metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup);
  }

  int window = part_begin / 32 + simdgroup;
  for (; simdgroup < working && window < windows_of(part_end);
       window += working) {
    const int i = window * 32 + lane;
    // A lane without a label has room behind the part's ranks.
    const Label label =
        label_of(labels + int64_t(n) * S, S_n, BLANK, i, i - part_begin);
    if (!has_path(segment, window)) {
      for (int f = 0; f < FRAMES; ++f) {
        gammas[f][label.rank] = 0.0f;
      }
      continue;
    }
    const Place place = place_of_label(label, S_n, i);
    add_window<SEGMENT>(
        wanted(own, own + FRAMES, &gammas[0][label.rank], CAPACITY),
        segment,
        place,
        tables,
        emissions,
        p_blank[simdgroup],
        &p_labels[simdgroup][0][lane],
        z,
        window,
        blank_gammas[simdgroup],
        frame_gammas[simdgroup],
        lane);
  }
  // The simdgroup whose turn it would be has the last blank.
  if (count > 0 && part_end == S_n && simdgroup < working &&
      window == windows_of(S_n)) {
    add_last_blank<SEGMENT>(
        segment,
        tables,
        emissions,
        p_blank[simdgroup],
        z,
        blank_gammas[simdgroup],
        frame_gammas[simdgroup],
        lane);
  }
  metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);

  if (thread_index < FRAMES) {
    const int f = own + thread_index;
    for (int k = 1; k < working; ++k) {
      blank_gammas[0][f] += blank_gammas[k][f];
      frame_gammas[0][f] += frame_gammas[k][f];
    }
    // A frame's gamma sums to 1. Dividing by its sum takes out what alpha, w
    // and Z have gathered in rounding, unless parts of it are elsewhere.
    const float of_all = S_n <= PART ? frame_gammas[0][f] : 1.0f;
    gamma_scale[thread_index] = -weight / of_all;
  }
  metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);

  if (part == 0) {
    const auto rows = rows_of(
        C,
        int((int64_t(t0) * N + n) * C % 32),
        BLANK,
        count,
        here,
        log_probs + item + t0 * frame_stride,
        frame_stride,
        class_stride,
        gradient + (int64_t(t0) * N + n) * C,
        int64_t(N) * C,
        &softmax[0],
        &gammas[0][0],
        CAPACITY,
        &blank_gammas[0][own],
        &gamma_scale[0],
        classes + classes_at);
    write_rows<FRAMES, SIDE_BY_SIDE, LOGITS>(rows, thread_index, threads);
  } else {
    // What the part's classes have in it, and the blank.
    const int count_of_labels = part_end - part_begin;
    for (int k = thread_index; k <= count_of_labels; k += threads) {
      int y = BLANK;
      if (k < count_of_labels) {
        const int place = places[int64_t(n) * S + part_begin + k];
        y = targets[target + (part_begin + place) * targets_strides[1]];
      }
      const Ranks of_class = ranks_of(classes[classes_at + y]);
      const bool is_first = k < count_of_labels && k == of_class.begin;
      const bool is_blank_alone =
          k == count_of_labels && of_class.begin == of_class.end;
      if (is_first || is_blank_alone) {
        for (int f = 0; f < count; ++f) {
          float gamma = 0.0f;
#pragma unroll 1
          for (int rank = of_class.begin; rank < of_class.end; ++rank) {
            gamma += gammas[f][rank];
          }
          gamma += y == BLANK ? blank_gammas[0][own + f] : 0.0f;
          const int64_t to = (int64_t(t0 + f) * N + n) * C + y;
          gradient[to] =
              ELEMENT(metal::fma(gamma, gamma_scale[f], float(gradient[to])));
        }
      }
    }
  }
}
