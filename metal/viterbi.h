// The Viterbi recursion on one window of 32 pairs, a block of frames at a time.
//
// The recursion is that of alpha (recursion.h), with the greatest term in place
// of the sum. Of equal terms the first one counts, as on the CPU: a path that
// stays in its state, one from the state before, one that skips a blank.

#include "fixed_point.h"
#include "pointers.h"

constant constexpr int block_frames = 8;

// How the best paths came into a pair in one frame: 4 bits, and 32 for a block.
// Without any, blank and label stayed in their states.
constant constexpr uint label_to_blank = 1; // from the label before
constant constexpr uint blank_to_label = 2; // from the label's own blank
constant constexpr uint label_to_label = 4; // from the label before

struct PairScores {
  int64_t blank;
  int64_t label;
};

// Scores of one block, as loaded.
struct BlockScores {
  float label[block_frames]; // of this lane's label; -infinity if it has none
  // Lane f has those of the f-th frame:
  float blank;
  float greatest; // of all classes
};

METAL_FUNC BlockScores no_scores() {
  BlockScores scores;
#pragma unroll
  for (int f = 0; f < block_frames; ++f) {
    scores.label[f] = -metal::numeric_limits<float>::infinity();
  }
  scores.blank = 0.0f;
  scores.greatest = 0.0f;
  return scores;
}

// A limit of one frame's fixed-point scores, so that their sum over T_n frames
// does not overflow. Logits do not need it: relative to the greatest of their
// frame they are negative.
template <bool LOGITS>
METAL_FUNC float greatest_score_of(int T_n) {
  float greatest = 2305843009213693952.0f; // 2^61
  for (int frames = T_n - 1; !LOGITS && frames > 0; frames /= 2) {
    greatest *= 0.5f;
  }
  return greatest;
}

template <bool LOGITS>
METAL_FUNC PairScores scores_of_frame(
    thread const BlockScores& block,
    int f,
    float greatest_score,
    thread bool& valid) {
  const float infinity = metal::numeric_limits<float>::infinity();
  const float blank = metal::simd_broadcast(block.blank, f);
  const float greatest = metal::simd_broadcast(block.greatest, f);
  valid = valid && blank < infinity && block.label[f] < infinity;
  PairScores scores = {
      fixed_point(blank, greatest_score),
      fixed_point(block.label[f], greatest_score)};
  if (LOGITS) {
    const int64_t top = fixed_point(greatest, greatest_score);
    scores.blank = relative_score(scores.blank, top);
    scores.label = relative_score(scores.label, top);
  }
  return scores;
}

// Advances the best scores of a pair by one frame and returns how they came
// there. `before` is the best score of the label before, `skip` 0 or
// impossible.
METAL_FUNC uint step_of_viterbi(
    thread PairScores& best,
    int64_t before,
    int64_t skip,
    PairScores scores) {
  const int64_t stepped = larger(best.label, best.blank);
  const int64_t skipped = before + skip;
  const uint move = (before > best.blank ? label_to_blank : 0) |
      (best.blank > best.label ? blank_to_label : 0) |
      (skipped > stepped ? label_to_label : 0);
  best = PairScores{
      larger(larger(best.blank, before) + scores.blank, impossible),
      larger(larger(stepped, skipped) + scores.label, impossible)};
  return move;
}

// Where the label of lane 31 enters the next window, before each frame.
struct LabelExit {
  Shared<int64_t> inbox; // (block_frames)
  Device<int64_t> edge; // of the next round's first window
  bool to_inbox;
  bool to_edge;
};

// Advances a pair over `count` frames of a block and returns its moves.
template <bool LOGITS, bool ROUNDS>
METAL_FUNC uint viterbi_of_block(
    thread PairScores& best,
    thread const BlockScores& block,
    int count,
    float greatest_score,
    int64_t skip,
    Shared<int64_t> inbox, // (block_frames) labels that enter this window
    LabelExit exit,
    thread bool& valid,
    int lane) {
  uint moves = 0;
#pragma unroll
  for (int f = 0; f < block_frames; ++f) {
    if (f < count) {
      const PairScores scores =
          scores_of_frame<LOGITS>(block, f, greatest_score, valid);
      if (exit.to_inbox) {
        exit.inbox[f] = best.label;
      }
      if (ROUNDS && exit.to_edge) {
        exit.edge[f] = best.label;
      }
      int64_t before = shuffle_up(best.label);
      if (lane == 0) {
        before = inbox[f];
      }
      moves |= step_of_viterbi(best, before, skip, scores) << (4 * f);
    }
  }
  return moves;
}
