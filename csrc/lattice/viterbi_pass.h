// The Viterbi recursion over up to four frames in one pass over the states,
// which stay in registers from frame to frame and are loaded and stored once.
//
// A target of S labels makes S + 1 pairs of states: pair i is blank[i] and then
// label[i]. The last pair has only a blank. (The other recursions pair a label
// with the blank after it.) A block of pairs depends on the block before it
// only through the last label of that block.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd/blocks.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

// The score of an impossible path, at which sums saturate. The scores of all
// frames together add less than half of its size, so that the score of an
// impossible path stays below `nearly_impossible`.
constexpr int64_t impossible = -(int64_t(1) << 62);
constexpr int64_t nearly_impossible = impossible / 2;

// How the best paths came to the two states of a pair in one frame, in 4 bits.
// If no bit is set, both paths were in the same state in the frame before.
enum Move : int64_t {
  to_blank = 1, // from the label before
  step = 2, // to the label, from its blank
  jump = 4, // to the label, from the label before
};
constexpr int move_bits = 4;

// The moves of all frames of a pass into a pair, the first frame in the lowest
// bits.
using Moves = uint16_t;
constexpr int pass_frames = 8 * sizeof(Moves) / move_bits;

// The scores of the best paths to the states of one frame.
struct ViterbiStates {
  int64_t* blank; // (pairs)
  int64_t* label; // (pairs), `impossible` in the last
};

using Pairs = Block<int64_t>; // one number for each pair of a block
constexpr int64_t block_pairs = block_size<int64_t>;
typedef Moves BlockMoves
    __attribute__((vector_size(block_pairs * sizeof(Moves))));

// Takes `states` over `frames` frames, for the pairs [begin, end), which are
// whole blocks, and with `record` writes the moves. Of equal scores staying
// wins over a step, a step over a jump. jumping[i] is 0 if a path may jump to
// label[i], else `impossible`.
template <int frames, bool record>
void viterbi_pass(
    int64_t begin,
    int64_t end,
    const int64_t* jumping, // (pairs)
    const int64_t* blank_score, // (frames)
    const int64_t* label_score, // (frames, pitch)
    int64_t pitch,
    ViterbiStates states,
    Moves* moves) { // (end - begin)
  Pairs labels_before[frames];
  for (Pairs& before : labels_before) {
    before = filled(impossible);
  }
  for (int64_t i = begin; i < end; i += block_pairs) {
    Pairs blank = load_block(states.blank + i);
    Pairs label = load_block(states.label + i);
    Pairs jump_score = load_block(jumping + i);
    Pairs bits = {};
    for (int k = 0; k < frames; ++k) {
      Pairs left = shifted<1>(labels_before[k], label);
      labels_before[k] = label;
      Pairs jumped = left + jump_score;
      Pairs stepped = larger(label, blank);
      if constexpr (record) {
        int shift = move_bits * k;
        bits |= (left > blank) & (to_blank << shift);
        bits |= (blank > label) & (step << shift);
        bits |= (jumped > stepped) & (jump << shift);
      }
      blank = larger(blank, left) + blank_score[k];
      label = larger(stepped, jumped) + load_block(label_score + k * pitch + i);
      blank = larger(blank, filled(impossible));
      label = larger(label, filled(impossible));
    }
    store_block(states.blank + i, blank, block_pairs);
    store_block(states.label + i, label, block_pairs);
    if constexpr (record) {
      BlockMoves words = __builtin_convertvector(bits, BlockMoves);
      std::memcpy(moves + (i - begin), &words, sizeof(words));
    }
  }
}

// viterbi_passes<record>[n - 1] is the pass over n frames.
template <bool record>
constexpr decltype(&viterbi_pass<1, record>) viterbi_passes[pass_frames] = {
    viterbi_pass<1, record>,
    viterbi_pass<2, record>,
    viterbi_pass<3, record>,
    viterbi_pass<4, record>};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
