// The best alignment of each target with its frames: the Viterbi recursion
// (viterbi.h), then its path from the last frame back (traceback.h).
//
// As in the scan, a lane holds one pair of states in registers for all frames:
// blank i and label i, for i = 0 .. S, where label S does not exist. A
// simdgroup has a window of 32 pairs, one block of 8 frames behind the window
// before it, and loads the scores of the next block before it computes one.
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

#include "align_steps.h"
#include "range_check.h"
#include "traceback.h"

threadgroup int64_t inbox[MAX_SIMDGROUPS * 2 * block_frames];
threadgroup int64_t final_scores[2];
threadgroup int flags[MAX_SIMDGROUPS];

const int n = int(threadgroup_position_in_grid.x);
#include "sequence.inc"
const int B = (T + block_frames - 1) / block_frames;

if (self.index < 2 * block_frames) {
  inbox[self.index] = impossible; // no label enters the first window
}
// Here the blank's class is out of range as a label.
const bool in_range =
    check_range(sequence, T, S, C, sequence.blank, flags, self);

const ViterbiMemory memory = {
    inbox,
    final_scores,
    edges + int64_t(n) * 2 * T,
    moves + int64_t(n) * B * (S + 1),
    T,
    S};
const auto viterbi = viterbi_of<LOGITS>(sequence, memory, self.simdgroups());
bool valid = true;
for (int round = 0; round * viterbi.slots < viterbi.windows; ++round) {
  align_round<LOGITS, ROUNDS>(valid, viterbi, round, self);
}
if (LOGITS) {
  check_normalisers(valid, sequence, self);
}
valid = all_of_threadgroup(valid, flags, self);

const PathEnd end = end_of_path(final_scores, sequence.S_n);
const bool has_path = in_range && valid && end.score > nearly_impossible;
const WrittenPath path = {alignments + int64_t(n) * T, scores + int64_t(n) * T};
write_frames_without_path(path, sequence, T, has_path, valid, in_range, self);
if (has_path && self.simdgroup == 0) {
  write_path<LOGITS>(path, sequence, end.state, memory.moves, S + 1, self.lane);
}
