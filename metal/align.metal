// The best alignment of each target with its frames: the Viterbi recursion
// (viterbi.h), then its path from the last frame back (traceback.h).
//
// As in the scan, a lane holds one pair of states in registers for all frames:
// blank i and label i, for i = 0 .. S, where label S does not exist. A
// simdgroup has a window of 32 pairs, one block of 8 frames behind the window
// before it. Each loads the scores of one block ahead.
//
// in   log_probs       (T, N, C) any strides
//      targets         (N, S)
//      input_lengths   (N)
//      target_lengths  (N)
//      normalisers     (N, T, 2) of logits; not read for log-probabilities
//      options         blank
// out  alignments      (N, T) classes
//      scores          (N, T) log-probabilities of the path
//      moves           (N, B, S + 1) how a block's frames came into each pair
//      edges           (N, 2, T) with ROUNDS, the labels that enter the next
//                      round's first window, of even and odd rounds
//
// There are B = ceil(T / 8) blocks.
//
// LOGITS            option of forced_align
// ROUNDS            whether there can be more windows than simdgroups
// MAX_SIMDGROUPS    simdgroups that the threadgroup has memory for

#include "range_check.h"
#include "traceback.h"

threadgroup int64_t inbox[MAX_SIMDGROUPS * 2 * block_frames]; // entering labels
threadgroup int64_t last[2]; // scores of the last blank and the last label
threadgroup int flags[MAX_SIMDGROUPS];

const Threads self = {
    int(threads_per_threadgroup.x),
    int(thread_position_in_threadgroup.x),
    int(simdgroup_index_in_threadgroup),
    int(thread_index_in_simdgroup)};
const int lane = self.lane;
const int simdgroup = self.simdgroup;
const int simdgroups = self.simdgroups();
const int n = int(threadgroup_position_in_grid.x);
const int T = log_probs_shape[0];
const int C = log_probs_shape[2];
const int S = targets_shape[1];
const int blank = options[0];
const int B = (T + block_frames - 1) / block_frames;

// Check the lengths and labels. Here the blank's class is out of range as a
// label.
const auto target = targets + n * targets_strides[0];
const int64_t target_stride = targets_strides[1];
if (self.index < 2 * block_frames) {
  inbox[self.index] = impossible; // no label enters the first window
}
const Lengths lengths = checked_lengths(
    input_lengths[n * input_lengths_strides[0]],
    target_lengths[n * target_lengths_strides[0]],
    T,
    S,
    C,
    target,
    target_stride,
    blank,
    flags,
    self);
const int T_n = lengths.T_n;
const int S_n = lengths.S_n;

const int windows = S_n / 32 + 1;
const int blocks = (T_n + block_frames - 1) / block_frames;
const int64_t frame_stride = log_probs_strides[0];
const int64_t class_stride = log_probs_strides[2];
const auto sequence_scores = log_probs + n * log_probs_strides[1];
const auto sequence_normalisers = normalisers + int64_t(n) * T * 2;
const float greatest_score = greatest_score_of<LOGITS>(T_n);
bool valid = true;

for (int first = 0; first < windows; first += simdgroups) {
  // This simdgroup's window in this round, and this lane's pair of states.
  const int windows_in_round = metal::min(simdgroups, windows - first);
  const bool has_window = simdgroup < windows_in_round;
  const int window = first + simdgroup;
  const int i = window * 32 + lane;
  const bool has_blank = has_window && i <= S_n;
  const bool has_label = has_window && i < S_n;
  int y = blank;
  int64_t skip = impossible; // added to the score of a path over the blank
  if (has_label) {
    y = target[i * target_stride];
    if (i > 0 && target[(i - 1) * target_stride] != y) {
      skip = 0;
    }
  }
  // The edges that this round writes, and those that the round before wrote.
  const int round = first / simdgroups;
  const Device<int64_t> edge = edges + (int64_t(n) * 2 + round % 2) * T;
  const Device<int64_t> edge_before =
      edges + (int64_t(n) * 2 + (round + 1) % 2) * T;

  // Before the first frame a path is in the first blank.
  PairScores best = {i == 0 ? 0 : impossible, impossible};
  BlockScores waiting = no_scores(); // of the next block to compute

  // In each phase all windows advance by a block.
  for (int phase = -1; phase < blocks + windows_in_round - 1; ++phase) {
    const int block = phase - simdgroup;
    const int t0 = block * block_frames;
    const bool computes = has_window && block >= 0 && block < blocks;
    const int count = computes ? metal::min(block_frames, T_n - t0) : 0;
    const bool loads = has_window && block >= -1 && block + 1 < blocks;
    const int next = t0 + block_frames;
    const BlockScores loaded = load_block<LOGITS>(
        sequence_scores + blank * class_stride,
        sequence_scores + y * class_stride,
        frame_stride,
        sequence_normalisers,
        next,
        loads ? metal::min(block_frames, T_n - next) : 0,
        has_label,
        lane);

    // Labels enter a round's first window from the round before.
    const int slot = (block & 1) * block_frames;
    const Shared<int64_t> own_inbox =
        inbox + simdgroup * 2 * block_frames + slot;
    if (ROUNDS && first > 0 && simdgroup == 0) {
      if (lane < count) {
        own_inbox[lane] = edge_before[t0 + lane];
      }
      metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup);
    }
    const bool is_last_lane = lane == 31;
    const bool has_next = simdgroup + 1 < windows_in_round;
    const LabelExit exit = {
        own_inbox + 2 * block_frames,
        edge + t0,
        is_last_lane && has_next,
        is_last_lane && simdgroup + 1 == windows_in_round &&
            window + 1 < windows};
    const uint word = viterbi_of_block<LOGITS, ROUNDS>(
        best,
        waiting,
        count,
        greatest_score,
        skip,
        own_inbox,
        exit,
        valid,
        lane);
    if (count > 0 && has_blank) {
      moves[(int64_t(n) * B + block) * (S + 1) + i] = word;
    }
    waiting = loaded;
    metal::threadgroup_barrier(
        metal::mem_flags::mem_device | metal::mem_flags::mem_threadgroup);
  }

  if (has_blank && i == S_n) {
    last[0] = best.blank;
  }
  if (has_label && i == S_n - 1) {
    last[1] = best.label;
  }
}

// Whether all scores were valid; invalid logits show in the normalisers.
if (LOGITS) {
  for (int t = self.index; t < T_n; t += self.count) {
    const float rest = sequence_normalisers[int64_t(t) * 2 + 1];
    valid = valid && rest >= 0.0f;
  }
}
valid = all_of_threadgroup(valid, flags, self);

// A path ends in the last label or in the blank after it.
const bool ends_in_label = S_n > 0 && last[1] >= last[0];
const int64_t best_score = ends_in_label ? last[1] : last[0];
const bool found = lengths.in_range && valid && best_score > nearly_impossible;
// Write the frames that no path has.
const float infinity = metal::numeric_limits<float>::infinity();
const float nan = metal::numeric_limits<float>::quiet_NaN();
for (int t = self.index; t < T; t += self.count) {
  if (!found || t >= T_n) {
    alignments[int64_t(n) * T + t] = blank;
    const float of_frame = valid ? -infinity : nan;
    scores[int64_t(n) * T + t] =
        lengths.in_range ? (t < T_n ? of_frame : 0.0f) : nan;
  }
}
if (!found || simdgroup > 0) {
  return;
}

// One simdgroup follows the path back and writes it.
const PathState last_state = {ends_in_label ? S_n - 1 : S_n, ends_in_label};
write_path<LOGITS>(
    last_state,
    T_n,
    moves + int64_t(n) * B * (S + 1),
    S + 1,
    target,
    target_stride,
    blank,
    sequence_scores,
    frame_stride,
    class_stride,
    sequence_normalisers,
    alignments + int64_t(n) * T,
    scores + int64_t(n) * T,
    lane);
