// A boundary between two segments: alpha before it and beta_p after it, as the
// scan has stored them. Their product over all paths that cross it is z, at
// each boundary.
//
// Here a target of S labels has S + 1 pairs, and the last blank is a pair
// without a label.

#include "floats.h"
#include "pointers.h"
#include "tables.h"

// The states of pair i at a boundary, and of the label before it.
struct PairAtBoundary {
  Pair alpha;
  Extended alpha_of_label_before;
  Pair beta_p;
};

// A stored number, or zero. In bits, so that several are loaded before the
// first is used.
METAL_FUNC uint64_t
load_stored(Device<const uint64_t> states, int index, bool is_stored) {
  uint64_t bits = levelled_to_bits(unreached());
  if (is_stored) {
    bits = states[index];
  }
  return bits;
}

METAL_FUNC Extended from_stored(uint64_t bits) {
  return to_extended(levelled_from_bits(bits));
}

struct Boundary {
  int t; // the first frame after it
  int T_n;
  int S_n;
  Device<const uint64_t> alpha; // checkpoints
  Device<const uint64_t> beta_p;

  // Whether the scan has stored the label's states: it stores none before the
  // first frame and after the last, and skips windows that no path is in
  // (turns_of).
  METAL_FUNC bool stores(int label) const {
    const Band band = band_of(t, t, T_n, S_n);
    const int first = label / 32 * 32;
    return t > 0 && t < T_n && first >= band.first && first <= band.last;
  }

  // The scan of alpha has blank i in the window of label i, and the last blank
  // in that of the last label; the scan of beta_p has it in the window of label
  // i - 1. Before the first frame a path is in the first blank, and after the
  // last frame in the last blank.
  METAL_FUNC PairAtBoundary pair(int i) const {
    const bool has_blank = i <= S_n;
    const bool has_label = i < S_n && stores(i);
    const bool has_before = i > 0 && has_blank && stores(i - 1);
    const bool has_alpha =
        has_blank && stores(metal::max(metal::min(i, S_n - 1), 0));
    const bool has_beta_p = has_blank && stores(metal::max(i - 1, 0));
    const uint64_t alpha_blank = load_stored(alpha, 2 * i, has_alpha);
    const uint64_t alpha_label = load_stored(alpha, 2 * i + 1, has_label);
    const uint64_t before = load_stored(alpha, 2 * i - 1, has_before);
    const uint64_t beta_p_blank = load_stored(beta_p, 2 * i, has_beta_p);
    const uint64_t beta_p_label = load_stored(beta_p, 2 * i + 1, has_label);
    const Extended one = extended_one();
    return PairAtBoundary{
        Pair{
            choose(t == 0 && i == 0, one, from_stored(alpha_blank)),
            from_stored(alpha_label)},
        from_stored(before),
        Pair{
            choose(t == T_n && i == S_n, one, from_stored(beta_p_blank)),
            from_stored(beta_p_label)}};
  }

  // Whether the paths that cross the boundary into pair i are more than 2^-64
  // of z. `skip` as in recursion.h.
  METAL_FUNC bool is_crossed(PairAtBoundary pair, int i, int skip, Extended z)
      const {
    if (t == 0 || t == T_n) {
      return i == (t == 0 ? 0 : S_n);
    }
    const Pair paths = emit(
        sum_of_predecessors(pair.alpha, pair.alpha_of_label_before, skip),
        pair.beta_p.blank,
        pair.beta_p.label);
    return metal::max(paths.blank.e, paths.label.e) > z.e - 64;
  }
};

// The boundary before segment b.
template <typename Sequence>
METAL_FUNC Boundary boundary_before(
    int b,
    int segment_frames,
    thread const Sequence& sequence,
    Device<const uint64_t> checkpoints, // of the sequence
    int S) {
  const int size = size_of_checkpoint(S);
  const Device<const uint64_t> beta_p =
      checkpoints + (int64_t(b) * 2 + 1) * size;
  return Boundary{
      metal::min(b * segment_frames, sequence.T_n),
      sequence.T_n,
      sequence.S_n,
      beta_p - 3 * size,
      beta_p};
}
