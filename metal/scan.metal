// alpha and w (recursion.h) over all frames of a sequence, and from alpha
// the loss. A third threadgroup sorts the labels by class for the gradient.
//
// A lane holds one pair of states in registers for all frames, a simdgroup a
// window of 32 pairs. The only thing that passes from lane to lane is a label,
// and it passes one way: so the windows need not keep step. Each is one segment
// of frames behind the window before it, and all meet once in a segment. More
// windows than the threadgroup has room for are done in rounds.
//
// A second simdgroup works for each window's: it fetches the scores, two
// segments ahead, and makes them probabilities, one segment ahead. The last
// window's also has the last blank, a segment behind.
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
//      checkpoints     (N, B, 2, S + 1, 2) alpha's blanks and labels after the
//                      last frame of a segment, and w's at its first frame
//      edges           (N, B, V + 1, 3, 2, SEGMENT) what enters a window: alpha
//                      of the label before it (0), w of the blank (1) and of
//                      the label (2) behind it, before each frame of a segment,
//                      w's from the last to the first: their floats, and the
//                      levels of those. What enters none comes last.
//      classes         (N, P, C) the ranks of a class's labels, packed, in the
//                      order of a part's labels by class
//      labels          (N, S) what the gradient needs to know of each, packed
//      places          (N, S) of the label with rank r in that order, in its
//                      part
//
// B = ceil(T / SEGMENT), V = ceil(S / 32) windows, P = ceil(S / PART), 1 at
// least
//
// LOGITS, BLANK, ZERO_INFINITY    the op's options
// ROUNDS                          there may be more windows than room
// SEGMENT                         frames between checkpoints
// PART                            labels of a part, see the gradient
// MAX_WINDOWS                     room for so many in a threadgroup

#include "last_blank.h"
#include "loss.h"
#include "sort.h"
#include "window.h"

const float infinity = metal::numeric_limits<float>::infinity();

// Segments that the windows and the last blank are apart at most, and the next.
constexpr int ROOMS = 32;
static_assert(ROOMS >= MAX_WINDOWS + 3, "the windows are within the rooms");

// Of the segment that is computed, and of the next, for each window.
threadgroup float p_labels[MAX_WINDOWS * 2 * SEGMENT * 32];
threadgroup float p_blanks[ROOMS * SEGMENT]; // of all windows
threadgroup Unit units[ROOMS];
// The labels that enter each window; in the first one's place, the last blank.
threadgroup uint inbox[MAX_WINDOWS * 2 * 2 * SEGMENT];
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
  const int64_t listed = int64_t(parts_of(S, PART)) * C;
  sort_by_class(
      targets + target,
      targets_strides[1],
      S_n,
      C,
      PART,
      listed,
      classes + n * listed,
      labels + int64_t(n) * S,
      places + int64_t(n) * S,
      thread_index,
      threads);
  return;
}

const bool backward = task == 1;
const int windows = metal::max(windows_of(S_n), 1);
const int segments = (T_n + SEGMENT - 1) / SEGMENT;
const int64_t frame_stride = log_probs_strides[0];
const int64_t step = backward ? -frame_stride : frame_stride;
const int64_t item = n * log_probs_strides[1];
bool good = true;

// All windows' first simdgroups, then all their second ones.
const int at_once = simdgroups / 2;
const int own = simdgroup % at_once;
const bool fetches = simdgroup >= at_once;

for (int first = 0; first < windows; first += at_once) {
  const int window = first + own;
  const int working = metal::min(at_once, windows - first);
  const bool works = own < working;

  // Backward, the first lane has the window's last label.
  const int along = backward ? windows - 1 - window : window;
  const Place place = place_of(
      targets + target,
      targets_strides[1],
      works ? S_n : -1,
      BLANK,
      along * 32 + (backward ? 31 - lane : lane),
      backward ? -1 : 1);

  // The segments to scan by their turn, those where a path may be; all of
  // log-probabilities, to look for bad ones.
  const int before = backward ? along + 1 : along - 1;
  Turns turns = {0, works ? segments - 1 : -1};
  Turns entering = {0, window > 0 ? turns.last : -1};
  if (LOGITS && works) {
    turns = turns_of(along, T_n, S_n, SEGMENT, segments, backward);
  }
  if (LOGITS && works && window > 0) {
    entering = turns_of(before, T_n, S_n, SEGMENT, segments, backward);
  }

  // From the first of them on, what is read two segments ahead: the label's
  // scores, and of its k-th frame by lane k the blank's and the greatest.
  const Frames first_frames =
      frames_of(turns.first, T_n, SEGMENT, segments, backward);
  const auto blank_scores = log_probs + item + BLANK * log_probs_strides[2];
  const auto label_scores = log_probs + item + place.y * log_probs_strides[2];
  auto label_from = label_scores + first_frames.first * frame_stride;
  float scores[SEGMENT];
  FrameScores frame = {0.0f, -infinity};
#pragma unroll
  for (int k = 0; k < SEGMENT; ++k) {
    scores[k] = 0.0f;
  }

  // Where a lane leaves what passes to other windows, and where the segments'
  // ends are kept. A target's last label leaves for the last blank.
  const int B = (T + SEGMENT - 1) / SEGMENT;
  const int V = metal::max(windows_of(S), 1);
  const int64_t segments_before = int64_t(n) * B;
  const int of_segment = (V + 1) * 3 * 2 * SEGMENT; // words of edges
  const int row_of_labels = backward ? 2 : 0;
  const int behind = backward ? (along > 0 ? along - 1 : V) : along + 1;
  device uint* leaving =
      edges + (segments_before + first_frames.segment) * of_segment;
  device uint* leaving_labels =
      leaving + (behind * 3 + row_of_labels) * 2 * SEGMENT;
  device uint* leaving_blanks = leaving + (along * 3 + 1) * 2 * SEGMENT;
  const bool leaves_label =
      place.has_states && (lane == 31 || (!backward && place.label == S_n - 1));
  const bool leaves_blank =
      place.has_states && backward && (lane == 0 || place.label == S_n - 1);
  const int receiver = own + 1 < working ? own + 1 : 0;
  const int row = 2 * (S + 1); // of checkpoints
  device uint64_t* checkpoint =
      checkpoints + ((segments_before + first_frames.segment) * 2 + task) * row;

  // Before its first frame a path is at its first blank.
  Pair state = Pair{never_reached(), never_reached()};
  if (place.blank == (backward ? S_n : 0)) {
    state.blank = extended_one();
  }
  state = with_all(state, place.has_states);
  Extended last_blank = S_n == 0 ? extended_one() : extended_zero();

  for (int phase = -2; phase < segments + working; ++phase) {
    const int turn = phase - own;
    if (fetches) {
      const int next = turn + 1;
      const Frames frames = frames_of(next, T_n, SEGMENT, segments, backward);
      const Frames after =
          frames_of(next + 1, T_n, SEGMENT, segments, backward);

      // The unit and the blank's probabilities are the same for all windows,
      // and the first has them first.
      Unit unit = {0.0f, 0};
      if (own > 0 && contains(turns, next)) {
        unit = units[next % ROOMS];
      }
      if (own == 0 && next >= 0 && next < segments) {
        const bool has_frame = contains(frames, lane);
        unit = make_blanks<SEGMENT>(
            frame, has_frame, p_blanks + next % ROOMS * SEGMENT, lane);
        if (lane == 0) {
          units[next % ROOMS] = unit;
        }
        // The normalisers tell of bad logits.
        good = good && (LOGITS || !has_frame || frame.blank < 2.9e6f);
      }
      if (own == 0 && next + 1 < segments) {
        const int t = frame_at(after, lane);
        frame = frame_scores<LOGITS>(
            blank_scores + t * frame_stride,
            normalisers + (int64_t(n) * T + t) * 2,
            contains(after, lane));
      }

      if (contains(turns, next)) {
        const int to = (own * 2 + (next & 1)) * SEGMENT * 32 + lane;
#pragma unroll
        for (int k = 0; k < SEGMENT; ++k) {
          p_labels[to + k * 32] = plain_probability(scores[k], unit);
          good = good && (LOGITS || scores[k] < 2.9e6f);
        }
        if (frames.end - frames.begin < SEGMENT) {
          for (int k = 0; k < SEGMENT; ++k) {
            if (!contains(frames, k)) {
              p_labels[to + k * 32] = place.has_states ? p_label_behind : 1.0f;
            }
          }
        }
      }
      if (contains(turns, next + 1)) {
        fetch(scores, label_from, step, after);
        label_from += SEGMENT * step;
      }

      // The last blank is a segment behind the last label.
      const int gone = turn - 1;
      if (window == windows - 1 && contains(turns, gone)) {
        const int k = lane % SEGMENT;
        const Frames frames = frames_of(gone, T_n, SEGMENT, segments, backward);
        Extended label = never_reached();
        if (S_n > 0) {
          const int at = (gone & 1) * 2 * SEGMENT + k;
          label = edge_number(inbox[at], inbox[at + SEGMENT]);
        }
        last_blank = last_blank_after<SEGMENT>(
            last_blank,
            as_number(label),
            number_of(
                p_blanks[gone % ROOMS * SEGMENT + k],
                blank_scores + frame_at(frames, k) * frame_stride,
                units[gone % ROOMS]),
            lane);
        if (gone < turns.last && lane == 0) {
          checkpoint[backward ? 0 : 2 * S_n] = pack(from_number(last_blank));
        }
        checkpoint += frames.step * 2 * row;
      }
    } else if (contains(turns, turn)) {
      const Frames frames = frames_of(turn, T_n, SEGMENT, segments, backward);
      const int slot = turn & 1;
      const int room = own * 2 + slot;

      // Lane k has what enters with the k-th frame. A round's first window
      // continues from the last of the round before.
      Extended from_left = never_reached();
      if (contains(entering, turn)) {
        if (ROUNDS && own == 0) {
          const int64_t at = (segments_before + frames.segment) * of_segment +
              (along * 3 + row_of_labels) * 2 * SEGMENT + lane % SEGMENT;
          from_left = edge_number(edges[at], edges[at + SEGMENT]);
        } else {
          const int at = room * 2 * SEGMENT + lane % SEGMENT;
          from_left = edge_number(inbox[at], inbox[at + SEGMENT]);
        }
      }
      const auto exits = exits_of(
          inbox + (receiver * 2 + slot) * 2 * SEGMENT,
          leaving_labels,
          leaving_blanks,
          leaves_label,
          leaves_blank);
      const bool stayed = scan_in_floats<SEGMENT>(
          state,
          from_left,
          place,
          p_blanks + turn % ROOMS * SEGMENT,
          p_labels + room * SEGMENT * 32 + lane,
          exits,
          lane);
      if (!stayed) {
        const int64_t at = frames.first * frame_stride;
        scan_without_limits<SEGMENT>(
            state,
            from_left,
            place,
            blank_scores + at,
            label_scores + at,
            step,
            frames,
            units[turn % ROOMS],
            exits,
            lane);
      }

      // Where a segment ends, for alpha, or begins, for w.
      if (turn < turns.last && place.has_states) {
        checkpoint[2 * place.blank] = pack(state.blank);
        checkpoint[2 * place.label + 1] = pack(state.label);
      }
      leaving_labels += frames.step * of_segment;
      leaving_blanks += frames.step * of_segment;
      checkpoint += frames.step * 2 * row;
    }
    metal::threadgroup_barrier(
        metal::mem_flags::mem_device | metal::mem_flags::mem_threadgroup);
  }

  if (!fetches && place.has_states && place.label == S_n - 1) {
    last[1] = pack(as_number(state.label));
  }
  if (fetches && window == windows - 1 && lane == 0) {
    last[0] = pack(last_blank);
    if (S_n == 0) {
      last[1] = pack(extended_zero());
    }
  }
}

if (backward) {
  return;
}

Extended shares = extended_one();
if (LOGITS) {
  shares = product_of_lanes(product_of_shares(
      normalisers + int64_t(n) * T * 2,
      T_n,
      SEGMENT,
      thread_index,
      threads,
      good));
}
good = metal::simd_all(good);
if (lane == 0) {
  flags[simdgroup] = good ? 1 : 0;
  scale[simdgroup] = pack(shares);
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
good = good && in_range;
const float nan = metal::numeric_limits<float>::quiet_NaN();
const float of_none = ZERO_INFINITY ? 0.0f : infinity;
const float value = is_zero(z) ? of_none : loss_of(normalised, T_n);
loss[n] = good ? value : nan;
partition[n] = pack(good ? z : Extended{nan, in_range ? 0 : 1});
