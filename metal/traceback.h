// The best path, followed from its last frame to the first by one simdgroup.

#include "sequence.h"
#include "threads.h"
#include "viterbi.h"

// A path's state: label i, or the blank before it.
struct PathState {
  int i;
  bool in_label;
};

// A path ends in the last label or in the blank after it.
struct PathEnd {
  PathState state;
  int64_t score;
};

METAL_FUNC PathEnd end_of_path(Shared<int64_t> final_scores, int S_n) {
  const int64_t blank = final_scores[0];
  const int64_t label = S_n > 0 ? final_scores[1] : impossible;
  const bool in_label = S_n > 0 && label >= blank;
  return PathEnd{
      PathState{in_label ? S_n - 1 : S_n, in_label}, in_label ? label : blank};
}

METAL_FUNC PathState state_before(PathState state, uint move) {
  if (state.in_label) {
    const bool from_label = (move & label_to_label) != 0;
    return PathState{
        state.i - (from_label ? 1 : 0),
        from_label || (move & blank_to_label) == 0};
  }
  const bool from_label = (move & label_to_blank) != 0;
  return PathState{state.i - (from_label ? 1 : 0), from_label};
}

constant constexpr int traced_blocks = 3; // 24 frames, a lane for each

// Follows the path back through `traced_blocks` blocks, of which `last_block`
// is the last. Lane 8 k + f returns the label in frame f of block last_block -
// k, or -1 for a blank. A path changes its pair by at most one per frame, so
// that it stays in the 32 pairs of which the lanes load the moves.
METAL_FUNC int trace_blocks(
    thread PathState& state,
    int last_block,
    int T_n,
    Device<const uint> moves, // (B, pairs)
    int pairs,
    int lane) {
  const int from = state.i;
  const int pair = from - lane;
  uint words[traced_blocks];
#pragma unroll
  for (int k = 0; k < traced_blocks; ++k) {
    words[k] = 0;
    if (last_block >= k && pair >= 0) {
      words[k] = moves[int64_t(last_block - k) * pairs + pair];
    }
  }
  int label = -1;
#pragma unroll
  for (int k = 0; k < traced_blocks; ++k) {
    for (int f = block_frames - 1; f >= 0; --f) {
      if (last_block >= k && (last_block - k) * block_frames + f < T_n) {
        if (lane == k * block_frames + f && state.in_label) {
          label = state.i;
        }
        const uint word = metal::simd_broadcast(words[k], from - state.i);
        state = state_before(state, word >> (4 * f));
      }
    }
  }
  return label;
}

// Where the path of a sequence is written.
struct WrittenPath {
  Device<int> alignments; // (T) classes
  Device<float> scores; // (T)
};

// Writes the path's classes and their log-probabilities.
template <bool LOGITS, typename Sequence>
METAL_FUNC void write_path(
    WrittenPath path,
    thread const Sequence& sequence,
    PathState state, // in the last frame
    Device<const uint> moves, // (B, pairs)
    int pairs,
    int lane) {
  const int T_n = sequence.T_n;
  const int blocks = (T_n + block_frames - 1) / block_frames;
  for (int block = blocks - 1; block >= 0; block -= traced_blocks) {
    const int label = trace_blocks(state, block, T_n, moves, pairs, lane);
    const int t =
        (block - lane / block_frames) * block_frames + lane % block_frames;
    if (lane < traced_blocks * block_frames && t >= 0 && t < T_n) {
      const int y =
          label >= 0 ? sequence.class_of_label(label) : sequence.blank;
      float score = sequence.score(t, y);
      if (LOGITS) {
        score = (score - sequence.greatest_logit(t)) -
            metal::precise::log(1.0f + sequence.softmax_rest(t));
      }
      path.alignments[t] = y;
      path.scores[t] = score;
    }
  }
}

// Writes the frames that no path has: all of them, or those after the input
// length. Scores before it are -infinity, or NaN if a score of the sequence is
// invalid; those after it are 0. Lengths or labels out of range make all NaN:
// check_range() has set the input length to 0.
template <typename Sequence>
METAL_FUNC void write_frames_without_path(
    WrittenPath path,
    thread const Sequence& sequence,
    int T,
    bool has_path,
    bool has_valid_scores,
    bool in_range,
    Threads self) {
  const float infinity = metal::numeric_limits<float>::infinity();
  const float nan = metal::numeric_limits<float>::quiet_NaN();
  const float score = has_valid_scores ? -infinity : nan;
  const float score_after_end = in_range ? 0.0f : nan;
  const int begin = has_path ? sequence.T_n : 0;
  for (int t = begin + self.index; t < T; t += self.count) {
    path.alignments[t] = sequence.blank;
    path.scores[t] = t < sequence.T_n ? score : score_after_end;
  }
}
