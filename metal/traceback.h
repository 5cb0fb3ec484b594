// The best path, followed from its last frame to the first by one simdgroup.

#include "viterbi.h"

// A path's state: label i, or the blank before it.
struct PathState {
  int i;
  bool in_label;
};

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

// Writes the path's classes and their log-probabilities.
template <
    bool LOGITS,
    typename Scores,
    typename Normalisers,
    typename Targets>
METAL_FUNC void write_path(
    PathState state, // in the last frame
    int T_n,
    Device<const uint> moves, // (B, pairs)
    int pairs,
    Targets target,
    int64_t target_stride,
    int blank,
    Scores sequence_scores, // (T, C)
    int64_t frame_stride,
    int64_t class_stride,
    Normalisers normalisers, // (T, 2)
    Device<int> alignments, // (T)
    Device<float> scores, // (T)
    int lane) {
  const int blocks = (T_n + block_frames - 1) / block_frames;
  for (int block = blocks - 1; block >= 0; block -= traced_blocks) {
    const int label = trace_blocks(state, block, T_n, moves, pairs, lane);
    const int t =
        (block - lane / block_frames) * block_frames + lane % block_frames;
    if (lane < traced_blocks * block_frames && t >= 0 && t < T_n) {
      const int y = label >= 0 ? int(target[label * target_stride]) : blank;
      float score = float(sequence_scores[y * class_stride + t * frame_stride]);
      if (LOGITS) {
        const int64_t at = int64_t(t) * 2;
        score = (score - float(normalisers[at])) -
            metal::precise::log(1.0f + float(normalisers[at + 1]));
      }
      alignments[t] = y;
      scores[t] = score;
    }
  }
}
