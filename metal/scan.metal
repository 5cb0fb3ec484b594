// alpha and w (recursion.metal) over all frames of a sequence, and from alpha
// the loss. A third threadgroup lists the equal labels for the gradient.
//
// A lane holds one pair of states in registers for all frames, a simdgroup a
// window of 32 pairs. The only thing that passes from lane to lane is a label,
// and it passes one way: so the windows need not keep step. Each is one segment
// of frames behind the window before it, and all meet once in a segment. More
// windows than the threadgroup has room for are done in rounds.
//
// A second simdgroup works for each window's: it fetches the scores, two
// segments ahead, and makes them probabilities, one segment ahead.
//
// in   log_probs       (T, N, C) any strides
//      targets         (N, S)
//      input_lengths   (N)
//      target_lengths  (N)
//      normalisers     (N, T, 2) of logits; not read for log-probabilities
// out  loss            (N)
//      partition       (N) Z without the frames' normalisers. A mantissa of NaN
//                      marks an item with bad numbers; with exponent 1, an item
//                      with a label or length out of range
//      checkpoints     (N, 2, B, 2, S + 1) alpha's blanks and labels after the
//                      last frame of a segment, and w's at its first frame
//      edges           (N, 3, V, T) what enters window v + 1 at frame t from
//                      its left, alpha's label (0), and window v from its
//                      right, w's blank (1) and label (2), w's frames from the
//                      last to the first; with ROUNDS a fourth for the scan
//      heads           (N, P, C) the first place of a class in a part of the
//                      target, or -1
//      nexts           (N, S) the label's next place in its part, or -1
//
// B = ceil(T / SEGMENT), V = S / 32 windows but the last, P = S / PART + 1
//
// LOGITS, BLANK, ZERO_INFINITY    the op's options
// ROUNDS                          there may be more windows than room
// SEGMENT                         frames between checkpoints
// PART                            labels of a part, see the gradient
// MAX_WINDOWS                     room for so many in a threadgroup

const float infinity = metal::numeric_limits<float>::infinity();

// Of the segment that is computed, and of the next, for each window.
threadgroup float p_labels[MAX_WINDOWS][2][SEGMENT][32];
threadgroup float p_blanks[MAX_WINDOWS][2][SEGMENT];
threadgroup Unit units[MAX_WINDOWS][2];
threadgroup uint64_t inbox[MAX_WINDOWS][2][SEGMENT]; // the labels that enter
threadgroup uint64_t last[2]; // alpha's two states that end a path
threadgroup uint64_t scale[2 * MAX_WINDOWS]; // product of units over sums
threadgroup int flags[2 * MAX_WINDOWS];

const int T = log_probs_shape[0];
const int C = log_probs_shape[2];
const int S = targets_shape[1];
const int n = int(threadgroup_position_in_grid.x);
const int task = int(threadgroup_position_in_grid.y);
const int threads = int(threads_per_threadgroup.x);
const int simdgroups = threads / 32;
const int thread_index = int(thread_position_in_threadgroup.x);
const int simdgroup = int(simdgroup_index_in_threadgroup);
const int lane = int(thread_index_in_simdgroup);

// What is out of range is looked for first, then never used.
int T_n = input_lengths[n * input_lengths_strides[0]];
int S_n = target_lengths[n * target_lengths_strides[0]];
bool in_range = T_n >= 0 && T_n <= T && S_n >= 0 && S_n <= S;
const int64_t target = n * targets_strides[0];
if (in_range) {
  for (int i = thread_index; i < S_n; i += threads) {
    const int y = targets[target + i * targets_strides[1]];
    in_range = in_range && y >= 0 && y < C;
  }
}
in_range = metal::simd_all(in_range);
if (lane == 0) {
  flags[simdgroup] = in_range ? 1 : 0;
}
metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
for (int i = 0; i < simdgroups; ++i) {
  in_range = in_range && flags[i] != 0;
}
T_n = in_range ? T_n : 0;
S_n = in_range ? S_n : 0;

if (task == 2) {
  const int64_t listed = int64_t(S / PART + 1) * C; // of heads
  for (int64_t i = thread_index; i < listed; i += threads) {
    heads[n * listed + i] = -1;
  }
  metal::threadgroup_barrier(metal::mem_flags::mem_device);
  for (int i = thread_index; i < S_n; i += threads) {
    const int y = targets[target + i * targets_strides[1]];
    const int begin = i / PART * PART;
    const int end = metal::min(begin + PART, S_n);
    int next = i + 1;
    while (next < end && targets[target + next * targets_strides[1]] != y) {
      ++next;
    }
    nexts[int64_t(n) * S + i] = next < end ? next : -1;
    int before = i - 1;
    while (before >= begin &&
           targets[target + before * targets_strides[1]] != y) {
      --before;
    }
    if (before < begin) {
      heads[n * listed + int64_t(i / PART) * C + y] = i;
    }
  }
  return;
}

const bool backward = task == 1;
const int windows = S_n / 32 + 1;
const int segments = (T_n + SEGMENT - 1) / SEGMENT;
const int64_t frame_stride = log_probs_strides[0];
const int64_t item = n * log_probs_strides[1];
const int64_t blank_at = item + BLANK * log_probs_strides[2];
bool good = true;

// All windows' first simdgroups, then all their second ones.
const int at_once = simdgroups / 2;
const int own = simdgroup % at_once;
const bool fetches = simdgroup >= at_once;

for (int first = 0; first < windows; first += at_once) {
  const int window = first + own;
  const int working = metal::min(at_once, windows - first);
  const int scanned = own < working ? segments : 0;

  // Backward, the first lane has the last pair, and a pair is a blank with
  // the label before it.
  const int place = window * 32 + lane;
  const int blank_index = backward ? windows * 32 - 1 - place : place;
  const int label_index = backward ? blank_index - 1 : blank_index;
  const Has has =
      Has{own < working && blank_index <= S_n,
          own < working && label_index >= 0 && label_index < S_n};
  int y = BLANK;
  int jump = zero_exponent;
  if (has.label) {
    y = targets[target + label_index * targets_strides[1]];
    const int other = backward ? label_index + 1 : label_index - 1;
    if (other >= 0 && other < S_n) {
      jump =
          targets[target + other * targets_strides[1]] != y ? 0 : zero_exponent;
    }
  }
  const int64_t label_at = item + y * log_probs_strides[2];

  // Where the segment after the next is read; the blank's score and the
  // greatest of its k-th frame by lane k.
  const int first_frame = backward ? T_n - 1 : 0;
  const int lanes_frame = backward ? first_frame - lane : lane;
  const int64_t step = backward ? -frame_stride : frame_stride;
  auto label_from = log_probs + label_at + first_frame * frame_stride;
  auto blank_from = log_probs + blank_at + lanes_frame * frame_stride;
  auto greatest_from = normalisers + (int64_t(n) * T + lanes_frame) * 2;
  float scores[SEGMENT];
  float blank_score = 0.0f;
  float greatest = 0.0f;
#pragma unroll
  for (int k = 0; k < SEGMENT; ++k) {
    scores[k] = 0.0f;
  }

  // Where the window's last lanes leave what enters the next one, and where the
  // segments' ends are kept.
  const bool edge_is_blank = backward && lane == 31;
  const bool has_edge =
      window + 1 < windows && (lane == 31 || (backward && lane == 30));
  const int64_t V = metal::max(S / 32, 1);
  const int64_t edge = int64_t(n) * (ROUNDS ? 4 : 3) * V +
      (backward ? (edge_is_blank ? V : 2 * V) + windows - 2 - window : window);
  device uint64_t* leaving = edges + edge * T;
  const int64_t to_row_3 = 2 * V * T;
  const int64_t row = 2 * (S + 1); // of checkpoints
  const int64_t B = (T + SEGMENT - 1) / SEGMENT;
  device uint64_t* checkpoint = checkpoints +
      ((int64_t(n) * 2 + task) * B + (backward ? segments - 1 : 0)) * row;

  // Before its first frame a path is at its first blank.
  Pair state = no_states();
  if (blank_index == (backward ? S_n : 0)) {
    state.blank = extended_one();
  }

  for (int phase = -2; phase < segments + working - 1; ++phase) {
    const int segment = phase - own;
    const Frames now = frames_of(segment, scanned, SEGMENT, T_n, backward);
    if (fetches) {
      const int next =
          frames_of(segment + 1, scanned, SEGMENT, T_n, backward).count;
      const int after =
          frames_of(segment + 2, scanned, SEGMENT, T_n, backward).count;
      const int slot = (segment + 1) & 1;

      const Unit unit =
          unit_of(greatest_of_lanes(lane < next ? greatest : -infinity));
      const float p_blank = plain_probability(blank_score, unit);
      if (lane < SEGMENT) {
        p_blanks[own][slot][lane] = lane < next ? p_blank : 0.0f;
      }
      if (lane == 0) {
        units[own][slot] = unit;
      }
      // The normalisers tell of bad logits.
      good = good && (LOGITS || lane >= next || blank_score < 2.9e6f);
      if (lane < after) {
        blank_score = float(*blank_from);
        if (LOGITS) {
          greatest = *greatest_from;
        }
      }
      blank_from += after * step;
      greatest_from += backward ? -2 * after : 2 * after;

      const int of_label = has.label ? after : 0;
#pragma unroll
      for (int k = 0; k < SEGMENT; ++k) {
        const float p_label = plain_probability(scores[k], unit);
        p_labels[own][slot][k][lane] = has.label ? p_label : 0.0f;
        good = good && (LOGITS || scores[k] < 2.9e6f);
        scores[k] = 0.0f;
        if (k < of_label) {
          scores[k] = float(*label_from);
        }
        label_from += step;
      }
      label_from += (after - SEGMENT) * step;
    } else if (now.count > 0) {
      const int slot = segment & 1;

      // Lane k has what enters with the k-th frame. A round's first window
      // continues from the last of the round before.
      Extended entering = extended_zero();
      if (window > 0 && lane < now.count) {
        if (ROUNDS && own == 0) {
          const int64_t from = int64_t(n) * 4 * V +
              (backward ? 3 * V + windows - 1 - window : window - 1);
          const int begin = backward ? T_n - now.t0 - now.count : now.t0;
          entering = unpack(edges[from * T + begin + lane]);
        } else {
          entering = unpack(inbox[own][slot][lane]);
        }
        entering = as_number(entering);
      }
      const int level = metal::simd_max(entering.e);
      const float entering_floats = entering_float(entering, level);

      const Levels levels = levels_of_alpha(state, has, level, lane);
      const Arrivals to = arrivals(levels, has, level, jump, lane);
      const int left = has_edge ? now.count : 0;
      const int sent = lane == 31 && own + 1 < working ? now.count : 0;
      float p_blank[SEGMENT];
      float p_label[SEGMENT];
#pragma unroll
      for (int k = 0; k < SEGMENT; ++k) {
        p_blank[k] = p_blanks[own][slot][k];
        p_label[k] = p_labels[own][slot][k][lane];
      }
      Floats floats = floats_of(state);
      Floats before[SEGMENT]; // each frame
      uint least = 0xffffffffu;
#pragma unroll
      for (int k = 0; k < SEGMENT; ++k) {
        before[k] = floats;
        const float from_window = metal::simd_broadcast(entering_floats, k);
        const float from_lane = metal::simd_shuffle_up(floats.label, 1);
        const Floats moved = emit(
            arrive(floats, lane == 0 ? from_window : from_lane, to),
            p_blank[k],
            p_label[k]);
        least = least_of(least, moved);
        floats.blank = k < now.count ? moved.blank : floats.blank;
        floats.label = k < now.count ? moved.label : floats.label;
      }

      if (metal::simd_all(
              stayed_in_range(floats, least) &&
              entering_fits(entering, level))) {
        state = numbers_of(floats, levels);
#pragma unroll
        for (int k = 0; k < SEGMENT; ++k) {
          const uint64_t label = pack(of_float(before[k].label, levels.label));
          const uint64_t blank = pack(of_float(before[k].blank, levels.blank));
          if (k < sent) {
            inbox[own + 1][slot][k] = label;
          }
          if (k < left) {
            leaving[k] = edge_is_blank ? blank : label;
          }
          if (ROUNDS && edge_is_blank && k < left) {
            leaving[to_row_3 + k] = label;
          }
        }
      } else { // again, without limits
        const Unit unit = units[own][slot];
#pragma unroll 1
        for (int k = 0; k < now.count; ++k) {
          if (k < sent) {
            inbox[own + 1][slot][k] = pack(state.label);
          }
          if (k < left) {
            leaving[k] = pack(edge_is_blank ? state.blank : state.label);
          }
          if (ROUNDS && edge_is_blank && k < left) {
            leaving[to_row_3 + k] = pack(state.label);
          }
          const int64_t at =
              (backward ? now.first - k : now.first + k) * frame_stride;
          const Extended p_blank =
              probability(float(log_probs[blank_at + at]), unit);
          Extended p_label = extended_zero();
          if (has.label) {
            p_label = probability(float(log_probs[label_at + at]), unit);
          }
          const Extended label_before = choose(
              lane == 0, broadcast(entering, k), shuffle_up(state.label));
          state = emit(arrive(state, label_before, jump), p_blank, p_label);
          state = normalise(state);
        }
      }
      leaving += now.count;

      // Where a segment ends, for alpha, or begins, for w.
      if (segment + 1 < segments) {
        if (has.blank) {
          checkpoint[blank_index] = pack(state.blank);
        }
        if (has.label) {
          checkpoint[S + 1 + label_index] = pack(state.label);
        }
        checkpoint += backward ? -row : row;
      }
    }
    metal::threadgroup_barrier(
        metal::mem_flags::mem_device | metal::mem_flags::mem_threadgroup);
  }

  if (!fetches && !backward) {
    if (has.blank && blank_index == S_n) {
      last[0] = pack(state.blank);
      if (S_n == 0) {
        last[1] = pack(extended_zero());
      }
    }
    if (has.label && label_index == S_n - 1) {
      last[1] = pack(state.label);
    }
  }
}

if (backward) {
  return;
}

// The product over all frames of their unit over the sum of their
// exponentials.
Extended inverse = extended_one();
if (LOGITS) {
  for (int t0 = thread_index * SEGMENT; t0 < T_n; t0 += threads * SEGMENT) {
    const int end = metal::min(t0 + SEGMENT, T_n);
    float top = -infinity;
    for (int t = t0; t < end; ++t) {
      top = metal::max(top, float(normalisers[(int64_t(n) * T + t) * 2]));
    }
    const Unit unit = unit_of(top);
    for (int t = t0; t < end; ++t) {
      const int64_t at = (int64_t(n) * T + t) * 2;
      const float factor = normalisers[at + 1];
      good = good && factor > 0.0f;
      const Extended greatest = probability(float(normalisers[at]), unit);
      inverse.m *= factor / greatest.m;
      inverse = normalise(Extended{inverse.m, inverse.e - greatest.e});
    }
  }
  for (int step = 16; step > 0; step /= 2) {
    inverse.m *= metal::simd_shuffle_xor(inverse.m, step);
    inverse.e += metal::simd_shuffle_xor(inverse.e, step);
  }
}
good = metal::simd_all(good);
if (lane == 0) {
  flags[simdgroup] = good ? 1 : 0;
  scale[simdgroup] = pack(normalise(inverse));
}
metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
if (thread_index != 0) {
  return;
}

// Eq. 8: a path ends at the last blank or the last label.
const Extended z = normalise(sum(unpack(last[0]), unpack(last[1])));
Extended normalised = z;
for (int i = 0; i < simdgroups; ++i) {
  good = good && flags[i] != 0;
  normalised = normalise(product(normalised, unpack(scale[i])));
}

float value = minus_log(normalised);
// Rounding may put the loss of a certain alignment a little below zero, and an
// exact one has no sign.
if (value <= 0.0f && value >= -1.2e-7f * float(T_n)) {
  value = 0.0f;
}
if (is_zero(z)) {
  value = ZERO_INFINITY ? 0.0f : infinity;
}
const float nan = metal::numeric_limits<float>::quiet_NaN();
loss[n] = in_range && good ? value : nan;
partition[n] =
    in_range && good ? pack(z) : pack(Extended{nan, in_range ? 0 : 1});
