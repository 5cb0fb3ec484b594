// The steps of align.metal. In a round as many windows as there are simdgroups
// go through the blocks of frames, each one block behind the window before it.

#include "frames.h"
#include "sequence.h"
#include "threads.h"
#include "viterbi.h"

// What passes between windows, and what is kept of the recursion.
struct ViterbiMemory {
  // Labels that enter each window. One block is written while the other is
  // read.
  Shared<int64_t> inbox; // (slots, 2, block_frames)
  Shared<int64_t> final_scores; // (2) of the last blank and the last label
  // Labels that enter a round's first window, of even and of odd rounds.
  Device<int64_t> edges; // (2, T)
  Device<uint> moves; // (B, S + 1)
  int T;
  int S;

  METAL_FUNC Shared<int64_t> inbox_of(int slot, int block) const {
    return inbox + (slot * 2 + (block & 1)) * block_frames;
  }
  METAL_FUNC Device<int64_t> edge_of(int round, int block) const {
    return edges + (round & 1) * int64_t(T) + block * block_frames;
  }
  METAL_FUNC Device<uint> moves_of(int block) const {
    return moves + int64_t(block) * (S + 1);
  }
};

// The recursion over one sequence.
template <typename Sequence>
struct Viterbi {
  Sequence sequence;
  ViterbiMemory memory;
  float greatest_score; // greatest_score_of()
  int blocks;
  int windows;
  int slots; // windows in a round, but for the last round

  // 0 before the first block and after the last.
  METAL_FUNC int frames(int block) const {
    const int left = sequence.T_n - block * block_frames;
    return block >= 0 ? metal::clamp(left, 0, block_frames) : 0;
  }
};

template <bool LOGITS, typename Sequence>
METAL_FUNC Viterbi<Sequence>
viterbi_of(Sequence sequence, ViterbiMemory memory, int slots) {
  return Viterbi<Sequence>{
      sequence,
      memory,
      greatest_score_of<LOGITS>(sequence.T_n),
      (sequence.T_n + block_frames - 1) / block_frames,
      sequence.S_n / 32 + 1,
      slots};
}

// A simdgroup's window in a round, and this lane's pair of states: blank i and
// label i.
struct ViterbiWindow {
  int index; // in the target
  int round;
  int slot; // in threadgroup memory: the index in this round of windows
  bool exists;
  bool is_last_of_round;
  int i;
  bool has_blank;
  bool has_label;
  int y; // the label's class; the blank's in a lane without a label
  int64_t skip; // 0 if a path may skip the blank, otherwise impossible
};

template <typename Sequence>
METAL_FUNC ViterbiWindow window_of_viterbi(
    thread const Viterbi<Sequence>& viterbi,
    int round,
    Threads self) {
  const Sequence sequence = viterbi.sequence;
  const int slot = self.simdgroup;
  const int index = round * viterbi.slots + slot;
  const int i = index * 32 + self.lane;
  const bool has_label = i < sequence.S_n;
  return ViterbiWindow{
      index,
      round,
      slot,
      index < viterbi.windows,
      slot + 1 == viterbi.slots || index + 1 == viterbi.windows,
      i,
      i <= sequence.S_n,
      has_label,
      has_label ? sequence.class_of_label(i) : sequence.blank,
      may_skip_blank(sequence, i - 1, i) ? 0 : impossible};
}

template <bool LOGITS, typename Sequence>
METAL_FUNC BlockScores load_block(
    thread const Viterbi<Sequence>& viterbi,
    ViterbiWindow window,
    int block,
    int lane) {
  const Sequence sequence = viterbi.sequence;
  const int begin = block * block_frames;
  const int count = window.exists ? viterbi.frames(block) : 0;
  BlockScores scores = no_scores();
#pragma unroll
  for (int f = 0; f < block_frames; ++f) {
    if (f < count && window.has_label) {
      scores.label[f] = sequence.score(begin + f, window.y);
    }
  }
  if (lane < count) {
    scores.blank = sequence.score(begin + lane, sequence.blank);
    if (LOGITS) {
      scores.greatest = sequence.greatest_logit(begin + lane);
    }
  }
  return scores;
}

// Labels enter a round's first window from the last window of the round before.
template <typename Sequence>
METAL_FUNC void receive_labels(
    thread const Viterbi<Sequence>& viterbi,
    ViterbiWindow window,
    int block,
    int lane) {
  const Shared<int64_t> own_inbox = viterbi.memory.inbox_of(window.slot, block);
  const Device<int64_t> edge = viterbi.memory.edge_of(window.round - 1, block);
  if (lane < viterbi.frames(block)) {
    own_inbox[lane] = edge[lane];
  }
  metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup);
}

template <typename Sequence>
METAL_FUNC LabelExit exit_of(
    thread const Viterbi<Sequence>& viterbi,
    ViterbiWindow window,
    int block,
    int lane) {
  const bool is_last = window.index + 1 == viterbi.windows;
  const bool leaves = window.exists && lane == 31;
  return LabelExit{
      viterbi.memory.inbox_of(window.slot + 1, block),
      viterbi.memory.edge_of(window.round, block),
      leaves && !window.is_last_of_round,
      leaves && window.is_last_of_round && !is_last};
}

// Advances the window over a block of frames.
template <bool LOGITS, bool ROUNDS, typename Sequence>
METAL_FUNC void align_block(
    thread PairScores& best,
    thread bool& valid,
    thread const Viterbi<Sequence>& viterbi,
    ViterbiWindow window,
    int block,
    thread const BlockScores& scores,
    int lane) {
  if (ROUNDS && window.round > 0 && window.slot == 0) {
    receive_labels(viterbi, window, block, lane);
  }
  const int count = window.exists ? viterbi.frames(block) : 0;
  const uint word = viterbi_of_block<LOGITS, ROUNDS>(
      best,
      scores,
      count,
      viterbi.greatest_score,
      window.skip,
      viterbi.memory.inbox_of(window.slot, block),
      exit_of(viterbi, window, block, lane),
      valid,
      lane);
  if (count > 0 && window.has_blank) {
    const Device<uint> moves = viterbi.memory.moves_of(block);
    moves[window.i] = word;
  }
}

// All frames of one round. Before a simdgroup computes a block, it loads the
// scores of the next one.
template <bool LOGITS, bool ROUNDS, typename Sequence>
METAL_FUNC void align_round(
    thread bool& valid,
    thread const Viterbi<Sequence>& viterbi,
    int round,
    Threads self) {
  const ViterbiWindow window = window_of_viterbi(viterbi, round, self);
  const int windows =
      metal::min(viterbi.slots, viterbi.windows - round * viterbi.slots);
  // Before the first frame a path is in the first blank.
  PairScores best = {window.i == 0 ? 0 : impossible, impossible};
  BlockScores waiting = no_scores(); // of the next block to compute

  // In each phase all windows advance by a block.
  for (int phase = -1; phase < viterbi.blocks + windows - 1; ++phase) {
    const int block = phase - window.slot;
    const BlockScores loaded =
        load_block<LOGITS>(viterbi, window, block + 1, self.lane);
    align_block<LOGITS, ROUNDS>(
        best, valid, viterbi, window, block, waiting, self.lane);
    waiting = loaded;
    metal::threadgroup_barrier(
        metal::mem_flags::mem_device | metal::mem_flags::mem_threadgroup);
  }

  // Keep the scores of the states in which a path ends.
  const Shared<int64_t> final_scores = viterbi.memory.final_scores;
  if (window.i == viterbi.sequence.S_n) {
    final_scores[0] = best.blank;
  }
  if (window.i == viterbi.sequence.S_n - 1) {
    final_scores[1] = best.label;
  }
}

// Invalid logits show in their normalisers.
template <typename Sequence>
METAL_FUNC void check_normalisers(
    thread bool& valid,
    thread const Sequence& sequence,
    Threads self) {
  for (int t = self.index; t < sequence.T_n; t += self.count) {
    valid = valid && sequence.softmax_rest(t) >= 0.0f;
  }
}
