// Alpha and beta_p over all frames of a sequence, and the loss. recursion.h has
// the equations, and tests/reference.py a float64 version (arrivals) with which
// the tests compare the kernels.
//
// Threadgroup y = 0 of a sequence scans alpha, y = 1 scans beta_p, and y = 2
// sorts the labels by class for the gradient.
//
// A lane holds one pair of states in registers for all frames, and a simdgroup
// a window of 32 pairs. All that passes from one window to the next is a label,
// and it passes in one direction. So each window is one segment of frames
// behind the window before it, and all meet at one barrier per segment. A
// target with more windows than the threadgroup has room for is scanned in
// rounds.
//
// Each window has two simdgroups. The second loads scores two segments ahead
// and converts them to probabilities one segment ahead, so that the recursion
// of the first waits for neither memory nor exp. That of the last window also
// computes the last blank, one segment behind.
//
// in   log_probs       (T, N, C) any strides
//      targets         (N, S)
//      input_lengths   (N)
//      target_lengths  (N)
//      normalisers     (N, T, 2) of logits; not read for log-probabilities
//      options         blank, zero_infinity
// out  scan_loss       (N); refine.metal adds digits to small ones
//      z               (N) total probability, without the frames' normalisers;
//                      see tables.h for those of invalid sequences
//      checkpoints, edges, classes, labels, label_of_rank: see tables.h
//
// There are B = ceil(T / SEGMENT) segments, V = ceil(S / 32) windows and
// P = ceil(S / PART) parts, each at least 1.
//
// LOGITS         option of ctc_loss
// ROUNDS         whether a target can need several rounds
// SEGMENT        frames between checkpoints
// PART           labels of a part (classes.h)
// MAX_WINDOWS    windows that the threadgroup has room for

#include "last_blank_scan.h"
#include "loss.h"
#include "range_check.h"
#include "scan_steps.h"
#include "sort.h"

static_assert(ring_segments >= MAX_WINDOWS + 3, "all segments in use fit");

threadgroup float p_labels[MAX_WINDOWS * 2 * SEGMENT * 32];
threadgroup float p_blanks[ring_segments * SEGMENT];
threadgroup Scale scales[ring_segments];
threadgroup uint inbox[MAX_WINDOWS * 2 * 2 * SEGMENT];
threadgroup uint64_t final_states[2]; // the last blank and the last label
threadgroup uint64_t products[2 * MAX_WINDOWS]; // of normalisers
threadgroup int flags[2 * MAX_WINDOWS];

const Threads self = {
    int(threads_per_threadgroup.x),
    int(thread_position_in_threadgroup.x),
    int(simdgroup_index_in_threadgroup),
    int(thread_index_in_simdgroup)};
const int lane = self.lane;
const int n = int(threadgroup_position_in_grid.x);
const int task = int(threadgroup_position_in_grid.y);
const int T = log_probs_shape[0];
const int C = log_probs_shape[2];
const int S = targets_shape[1];
const int blank = options[0];
const bool zero_infinity = options[1] != 0;

// Check the lengths and labels. A sequence with one out of range is scanned as
// an empty one.
const auto target = targets + n * targets_strides[0];
const int64_t target_stride = targets_strides[1];
const Lengths lengths = checked_lengths(
    input_lengths[n * input_lengths_strides[0]],
    target_lengths[n * target_lengths_strides[0]],
    T,
    S,
    C,
    target,
    target_stride,
    -1,
    flags,
    self);
const int T_n = lengths.T_n;
const int S_n = lengths.S_n;

// Task 2: sort the labels by class.
if (task == 2) {
  const int parts = parts_of(S, PART);
  sort_by_class(
      target,
      target_stride,
      S_n,
      C,
      PART,
      parts,
      classes + int64_t(n) * parts * size_of_classes(C),
      labels + int64_t(n) * size_of_labels(S),
      label_of_rank + int64_t(n) * size_of_labels(S),
      self);
  return;
}

// Tasks 0 and 1: scan alpha or beta_p.
const bool backward = task == 1;
const int segments = (T_n + SEGMENT - 1) / SEGMENT;
const Scan<SEGMENT> scan = {T_n, S_n, segments, backward};
const ScanMemory<SEGMENT> memory = {p_labels, p_blanks, scales, inbox};
const int B = (T + SEGMENT - 1) / SEGMENT;
const int V = metal::max(windows_of(S), 1);
const int64_t first_segment = int64_t(n) * B;
const auto scores = log_probs + n * log_probs_strides[1];
const auto blank_scores = scores + blank * log_probs_strides[2];
const int64_t frame_stride = log_probs_strides[0];
const int64_t step = backward ? -frame_stride : frame_stride;
bool valid = true;

// The first simdgroups of all windows come before the second ones.
const int max_windows = self.simdgroups() / 2; // of a round
const bool is_second = self.simdgroup >= max_windows;
const int slot = self.simdgroup % max_windows;
const int windows = metal::max(windows_of(S_n), 1);

for (int first = 0; first < windows; first += max_windows) {
  // This simdgroup's window in this round, and this lane's pair of states. In
  // the scan of beta_p, lane 0 has the window's last label.
  const int windows_in_round = metal::min(max_windows, windows - first);
  const ScanWindow window =
      window_of_scan<LOGITS>(scan, first, slot, windows, windows_in_round);
  const Place place = place_of(
      target,
      target_stride,
      slot < windows_in_round ? S_n : -1,
      blank,
      window.index * 32 + (backward ? 31 - lane : lane),
      backward ? -1 : 1);
  const bool is_last_window = window.order == windows - 1;

  // Registers of the second simdgroup (loader, last_blank) and of the first
  // (state); both have outputs.
  const auto label_scores = scores + place.y * log_probs_strides[2];
  const int64_t first_frame = scan.frames(window.turns.first).first;
  auto loader = loader_of<SEGMENT>(
      blank_scores,
      label_scores + first_frame * frame_stride,
      normalisers + int64_t(n) * T * 2,
      frame_stride,
      step);
  auto outputs = outputs_of(
      scan, window, place, first_segment, edges, checkpoints, S, V, lane);
  Pair state = initial_state(place, backward ? S_n : 0);
  Extended last_blank = S_n == 0 ? extended_one() : extended_zero();

  // In each phase all windows advance by a segment.
  for (int phase = -2; phase < segments + windows_in_round; ++phase) {
    const int turn = phase - slot;
    if (is_second) {
      prepare_probabilities<LOGITS>(
          scan, window, place, turn + 1, loader, memory, valid, lane);
      if (is_last_window && window.turns.contains(turn - 1)) {
        scan_last_blank(
            last_blank,
            scan,
            window,
            turn - 1,
            memory,
            outputs,
            blank_scores,
            frame_stride,
            lane);
      }
    } else if (window.turns.contains(turn)) {
      scan_segment<ROUNDS>(
          state,
          scan,
          window,
          place,
          turn,
          memory,
          outputs,
          edges + first_segment * size_of_edges(V, SEGMENT),
          V,
          blank_scores,
          label_scores,
          frame_stride,
          lane);
    }
    metal::threadgroup_barrier(
        metal::mem_flags::mem_device | metal::mem_flags::mem_threadgroup);
  }

  // Keep the states in which a path ends.
  if (is_second && is_last_window && lane == 0) {
    final_states[0] = extended_to_bits(last_blank);
    if (S_n == 0) {
      final_states[1] = extended_to_bits(extended_zero());
    }
  }
  if (!is_second && place.has_states && place.label == S_n - 1) {
    final_states[1] = extended_to_bits(to_extended(state.label));
  }
}

if (backward) {
  return;
}

// The normalisers that z lacks, and whether all scores were valid.
Extended product = extended_one();
if (LOGITS) {
  product = product_of_lanes(product_of_normalisers(
      normalisers + int64_t(n) * T * 2,
      T_n,
      SEGMENT,
      self.index,
      self.count,
      valid));
}
if (lane == 0) {
  products[self.simdgroup] = extended_to_bits(product);
}
valid = all_of_threadgroup(valid, flags, self) && lengths.in_range;
if (self.index != 0) {
  return;
}

// One thread writes z and the loss.
const Extended z_n = sum_of_final_states(final_states);
const float loss_n = is_zero(z_n)
    ? (zero_infinity ? 0.0f : metal::numeric_limits<float>::infinity())
    : loss_of(multiply_all(z_n, products, self.simdgroups()), T_n);
scan_loss[n] = valid ? loss_n : metal::numeric_limits<float>::quiet_NaN();
z[n] = extended_to_bits(choose(valid, z_n, invalid_z(lengths.in_range)));
