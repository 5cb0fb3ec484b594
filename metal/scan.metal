// alpha and w (recursion.metal) over all frames of a sequence, and from alpha
// the loss. A third threadgroup sorts the labels by class for the gradient.
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
//      edges           (N, 3, V, B, 2, SEGMENT) what enters window v + 1 from
//                      its left, alpha's label (0), and window v from its
//                      right, w's blank (1) and label (2): the floats of each
//                      frame of a segment, w's from the last to the first, and
//                      their levels; with ROUNDS a fourth for the scan
//      classes         (N, P, C) of a part's labels in the order of their
//                      classes, where those of a class begin, times 2^16, and
//                      how many they are
//      ranks           (N, S, 2) the rank of a part's i-th label in that order,
//                      and the place of the label with rank i
//
// B = ceil(T / SEGMENT), V = S / 32 windows but the last, P = S / PART + 1
//
// LOGITS, BLANK, ZERO_INFINITY    the op's options
// ROUNDS                          there may be more windows than room
// SEGMENT                         frames between checkpoints
// PART                            labels of a part, see the gradient
// MAX_WINDOWS                     room for so many in a threadgroup

const float infinity = metal::numeric_limits<float>::infinity();

// Segments that the windows are apart at most, and the next.
constexpr int ROOMS = 32;
static_assert(ROOMS >= MAX_WINDOWS + 2, "the windows are within the rooms");

// Of the segment that is computed, and of the next, for each window.
threadgroup float p_labels[MAX_WINDOWS * 2 * SEGMENT * 32];
threadgroup float p_blanks[ROOMS * SEGMENT]; // of all windows
threadgroup Unit units[ROOMS];
threadgroup uint inbox[MAX_WINDOWS * 2 * 2 * SEGMENT]; // the labels that enter
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
  const int64_t listed = int64_t(S / PART + 1) * C; // of classes
  for (int64_t i = thread_index; i < listed; i += threads) {
    classes[n * listed + i] = 0;
  }
  metal::threadgroup_barrier(metal::mem_flags::mem_device);
  for (int i = thread_index; i < S_n; i += threads) {
    const int y = targets[target + i * targets_strides[1]];
    const int begin = i / PART * PART;
    const int end = metal::min(begin + PART, S_n);
    int less = 0;
    int same = 0;
    int same_before = 0;
    for (int other = begin; other < end; ++other) {
      const int other_y = targets[target + other * targets_strides[1]];
      less += other_y < y ? 1 : 0;
      same += other_y == y ? 1 : 0;
      same_before += other_y == y && other < i ? 1 : 0;
    }
    const int rank = less + same_before;
    const int64_t part_at = int64_t(n) * S + begin;
    ranks[(part_at + i - begin) * 2] = uint16_t(rank);
    ranks[(part_at + rank) * 2 + 1] = uint16_t(i - begin);
    if (same_before == 0) {
      classes[n * listed + int64_t(i / PART) * C + y] =
          (uint(less) << 16) | uint(same);
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

  // Backward, the first lane has the last pair, and a pair is a blank with
  // the label before it.
  const int place = window * 32 + lane;
  const int blank_index = backward ? windows * 32 - 1 - place : place;
  const int label_index = backward ? blank_index - 1 : blank_index;
  const Has has =
      Has{own < working && blank_index <= S_n,
          own < working && label_index >= 0 && label_index < S_n};
  int y = BLANK;
  Steps steps = {forbidden, forbidden, forbidden};
  const int other = backward ? label_index + 1 : label_index - 1;
  const bool has_before = other >= 0 && other < S_n;
  if (has_before && has.blank) {
    steps.before = allowed;
  }
  if (has.label) {
    steps.between_blank_and_label = allowed;
    y = targets[target + label_index * targets_strides[1]];
    if (has_before && targets[target + other * targets_strides[1]] != y) {
      steps.jump = allowed;
    }
  }
  const int64_t label_at = item + y * log_probs_strides[2];

  // The segments to scan by their turn, those where a path may be; all of
  // log-probabilities, to look for bad ones.
  const int along = backward ? windows - 1 - window : window;
  const int before = backward ? along + 1 : along - 1;
  Turns turns = {0, own < working ? segments - 1 : -1};
  Turns entering = {0, window > 0 ? turns.last : -1};
  if (LOGITS && own < working) {
    turns = turns_of(along, T_n, S_n, SEGMENT, segments, backward);
  }
  if (LOGITS && own < working && window > 0) {
    entering = turns_of(before, T_n, S_n, SEGMENT, segments, backward);
  }

  // What is read two segments ahead, the blank's score and the greatest of its
  // k-th frame by lane k, and made probabilities one segment ahead.
  const int begin = backward ? segments - 1 - turns.first : turns.first;
  const int from_frame = begin * SEGMENT + (backward ? SEGMENT - 1 : 0);
  const int64_t step = backward ? -frame_stride : frame_stride;
  auto label_from = log_probs + label_at + from_frame * frame_stride;
  float scores[SEGMENT];
  float blank_score = 0.0f;
  float greatest = 0.0f;
#pragma unroll
  for (int k = 0; k < SEGMENT; ++k) {
    scores[k] = 0.0f;
  }

  // Where the window's last lanes leave what enters the next one, and where the
  // segments' ends are kept.
  const int64_t B = (T + SEGMENT - 1) / SEGMENT;
  const int64_t V = metal::max(S / 32, 1);
  const int64_t to_row = V * B * 2 * SEGMENT;
  const bool edge_is_blank = backward && lane == 31;
  const bool has_edge =
      window + 1 < windows && (lane == 31 || (backward && lane == 30));
  const int64_t of_edges = int64_t(n) * (ROUNDS ? 4 : 3) * to_row;
  const int edge_row = backward ? (edge_is_blank ? 1 : 2) : 0;
  const int edge = backward ? windows - 2 - window : window;
  device uint* leaving =
      edges + of_edges + edge_row * to_row + (edge * B + begin) * 2 * SEGMENT;
  const int row = 2 * (S + 1); // of checkpoints
  device uint64_t* checkpoint =
      checkpoints + ((int64_t(n) * 2 + task) * B + begin) * row + blank_index;
  const int to_label = backward ? S : S + 1;

  // The last lane's labels are sent to the next window.
  const bool is_sent = lane == 31 && own + 1 < working;
  const int receiver = is_sent ? own + 1 : 0;

  // Before its first frame a path is at its first blank.
  Pair state = Pair{never_reached(), never_reached()};
  if (blank_index == (backward ? S_n : 0)) {
    state.blank = extended_one();
  }
  state = with_all(state, has);

  for (int phase = -2; phase < segments + working - 1; ++phase) {
    const int turn = phase - own;
    if (fetches) {
      // The unit and the blank's probabilities are the same for all windows,
      // and the first has them first.
      const int next = turn + 1;
      const int segment = backward ? segments - 1 - next : next;
      const int frames = metal::min(SEGMENT, T_n - segment * SEGMENT);
      const int begin = backward ? SEGMENT - frames : 0;
      Unit unit = {0.0f, 0};
      if (own > 0 && contains(turns, next)) {
        unit = units[next % ROOMS];
      }
      if (own == 0 && next >= 0 && next < segments) {
        const bool has_frame = lane >= begin && lane < begin + frames;
        unit = unit_of(greatest_of_lanes(has_frame ? greatest : -infinity));
        if (lane < SEGMENT) {
          const float p_blank = plain_probability(blank_score, unit);
          p_blanks[next % ROOMS * SEGMENT + lane] =
              has_frame ? p_blank : p_blank_behind;
        }
        if (lane == 0) {
          units[next % ROOMS] = unit;
        }
        // The normalisers tell of bad logits.
        good = good && (LOGITS || !has_frame || blank_score < 2.9e6f);
      }
      if (contains(turns, next)) {
        const int to = (own * 2 + (next & 1)) * SEGMENT * 32 + lane;
#pragma unroll
        for (int k = 0; k < SEGMENT; ++k) {
          p_labels[to + k * 32] = plain_probability(scores[k], unit);
          good = good && (LOGITS || scores[k] < 2.9e6f);
        }
        if (frames < SEGMENT) {
          for (int k = frames; k < SEGMENT; ++k) {
            p_labels[to + (backward ? SEGMENT - 1 - k : k) * 32] =
                has.label ? p_label_behind : 1.0f;
          }
        }
      }
      const int after = segment + (backward ? -1 : 1);
      const int frames_after = metal::min(SEGMENT, T_n - after * SEGMENT);
      const int begin_after = backward ? SEGMENT - frames_after : 0;
      if (own == 0 && next + 1 < segments && lane >= begin_after &&
          lane < begin_after + frames_after) {
        const int t = after * SEGMENT + (backward ? SEGMENT - 1 - lane : lane);
        blank_score = float(log_probs[blank_at + t * frame_stride]);
        if (LOGITS) {
          greatest = normalisers[(int64_t(n) * T + t) * 2];
        }
      }
      if (contains(turns, next + 1)) {
        if (frames_after == SEGMENT) {
#pragma unroll
          for (int k = 0; k < SEGMENT; ++k) {
            scores[k] = float(*label_from);
            label_from += step;
          }
        } else {
#pragma unroll
          for (int k = 0; k < SEGMENT; ++k) {
            scores[k] = 0.0f;
            if (k >= begin_after && k < begin_after + frames_after) {
              scores[k] = float(*label_from);
            }
            label_from += step;
          }
        }
      }
    } else if (contains(turns, turn)) {
      const int segment = backward ? segments - 1 - turn : turn;
      const int slot = turn & 1;
      const int room = own * 2 + slot;
      const int sent_to = (receiver * 2 + slot) * 2 * SEGMENT;

      // Lane k has what enters with the k-th frame. A round's first window
      // continues from the last of the round before.
      Extended from_left = never_reached();
      if (contains(entering, turn)) {
        if (ROUNDS && own == 0) {
          const int64_t last_row = of_edges + (backward ? 3 : 0) * to_row;
          const int v = backward ? windows - 1 - window : window - 1;
          const int64_t at =
              last_row + (v * B + segment) * 2 * SEGMENT + lane % SEGMENT;
          from_left = edge_number(edges[at], edges[at + SEGMENT]);
        } else {
          const int at = room * 2 * SEGMENT + lane % SEGMENT;
          from_left = edge_number(inbox[at], inbox[at + SEGMENT]);
        }
      }
      const Extended enters = on_common_levels(from_left);

      Pair scanned = state;
      Extent extent = no_extent();
#pragma unroll
      for (int begin = 0; begin < SEGMENT; begin += span) {
        const int level = metal::simd_broadcast(enters.e, begin);
        scanned = with_levels_of_alpha(on_new_levels(scanned), level, lane);
        const Arrivals to = arrivals(scanned, level, steps, lane);
        Floats floats = Floats{scanned.blank.m, scanned.label.m};
        Floats before[span]; // each frame
        float p_blank[span];
        float p_label[span];
#pragma unroll
        for (int k = 0; k < span; ++k) {
          p_blank[k] = p_blanks[turn % ROOMS * SEGMENT + begin + k];
          p_label[k] = p_labels[(room * SEGMENT + begin + k) * 32 + lane];
        }
#pragma unroll
        for (int k = 0; k < span; ++k) {
          before[k] = floats;
          const float from_window = metal::simd_broadcast(enters.m, begin + k);
          const float from_lane = metal::simd_shuffle_up(floats.label, 1);
          const float label_before = lane == 0 ? from_window : from_lane;
          floats =
              emit(arrive(floats, label_before, to), p_blank[k], p_label[k]);
          note(extent, floats, k);
          if (is_sent) {
            inbox[sent_to + begin + k] = as_type<uint>(before[k].label);
            inbox[sent_to + SEGMENT + begin + k] =
                as_type<uint>(scanned.label.e);
          }
        }
        if (has_edge) {
          leave_span(leaving + begin, SEGMENT, scanned, before, edge_is_blank);
        }
        if (ROUNDS && edge_is_blank && has_edge) {
          leave_span(
              leaving + 2 * to_row + begin, SEGMENT, scanned, before, false);
        }
        scanned = with_floats(scanned, floats);
      }

      if (metal::simd_all(stayed_in_range(extent))) {
        state = scanned;
      } else { // again, without limits
        const Unit unit = units[turn % ROOMS];
        const Extended exact = as_number(from_left);
        Pair numbers = without_others(as_numbers(state), has);
#pragma unroll 1
        for (int k = 0; k < SEGMENT; ++k) {
          const Pair left = from_numbers(numbers);
          if (is_sent) {
            inbox[sent_to + k] = as_type<uint>(left.label.m);
            inbox[sent_to + SEGMENT + k] = as_type<uint>(left.label.e);
          }
          if (has_edge) {
            leave_number(
                leaving,
                k,
                SEGMENT,
                choose(edge_is_blank, left.blank, left.label));
          }
          if (ROUNDS && edge_is_blank && has_edge) {
            leave_number(leaving + 2 * to_row, k, SEGMENT, left.label);
          }
          const int t = segment * SEGMENT + (backward ? SEGMENT - 1 - k : k);
          if (t < T_n) {
            const int64_t at = t * frame_stride;
            const Extended p_blank =
                probability(float(log_probs[blank_at + at]), unit);
            Extended p_label = extended_zero();
            if (has.label) {
              p_label = probability(float(log_probs[label_at + at]), unit);
            }
            const Extended label_before = choose(
                lane == 0, broadcast(exact, k), shuffle_up(numbers.label));
            numbers = normalise(emit(
                arrive(numbers, label_before, steps.jump - allowed),
                p_blank,
                p_label));
          }
        }
        state = with_all(from_numbers(numbers), has);
      }

      // Where a segment ends, for alpha, or begins, for w.
      if (turn < turns.last) {
        if (has.blank) {
          checkpoint[0] = pack(state.blank);
        }
        if (has.label) {
          checkpoint[to_label] = pack(state.label);
        }
      }
      leaving += backward ? -2 * SEGMENT : 2 * SEGMENT;
      checkpoint += backward ? -row : row;
    }
    metal::threadgroup_barrier(
        metal::mem_flags::mem_device | metal::mem_flags::mem_threadgroup);
  }

  if (!fetches && !backward) {
    if (has.blank && blank_index == S_n) {
      last[0] = pack(as_number(state.blank));
      if (S_n == 0) {
        last[1] = pack(extended_zero());
      }
    }
    if (has.label && label_index == S_n - 1) {
      last[1] = pack(as_number(state.label));
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
