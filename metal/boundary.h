// A boundary between two segments: alpha before it and beta_p after it, as the
// scan has stored them. Their product over all paths that cross it is z, at
// each boundary.
//
// Here a target of S labels has S + 1 pairs, and the last blank is a pair
// without a label.

#include "floats.h"
#include "pointers.h"
#include "tables.h"

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
  // in that of the last label.
  METAL_FUNC Extended alpha_of_blank(int i) const {
    Extended result = t == 0 && i == 0 ? extended_one() : extended_zero();
    const int neighbour = metal::max(metal::min(i, S_n - 1), 0);
    if (i <= S_n && stores(neighbour)) {
      result = to_extended(extended_from_bits(alpha[2 * i]));
    }
    return result;
  }

  METAL_FUNC Extended alpha_of_label(int i) const {
    Extended result = extended_zero();
    if (i >= 0 && i < S_n && stores(i)) {
      result = to_extended(extended_from_bits(alpha[2 * i + 1]));
    }
    return result;
  }

  // The scan of beta_p has blank i in the window of label i - 1. After the last
  // frame all paths go to the last blank.
  METAL_FUNC Extended beta_p_of_blank(int i) const {
    Extended result = t == T_n && i == S_n ? extended_one() : extended_zero();
    if (i <= S_n && stores(metal::max(i - 1, 0))) {
      result = to_extended(extended_from_bits(beta_p[2 * i]));
    }
    return result;
  }

  METAL_FUNC Extended beta_p_of_label(int i) const {
    Extended result = extended_zero();
    if (i < S_n && stores(i)) {
      result = to_extended(extended_from_bits(beta_p[2 * i + 1]));
    }
    return result;
  }

  METAL_FUNC Pair beta_p_of(int i) const {
    return Pair{beta_p_of_blank(i), beta_p_of_label(i)};
  }

  // Whether the paths that cross the boundary into pair i are more than 2^-64
  // of z. `skip` as in recursion.h.
  METAL_FUNC bool is_crossed(int i, int skip, Extended z) const {
    if (t == 0 || t == T_n) {
      return i == (t == 0 ? 0 : S_n);
    }
    const Pair before = Pair{alpha_of_blank(i), alpha_of_label(i)};
    const Pair paths = emit(
        sum_of_predecessors(before, alpha_of_label(i - 1), skip),
        beta_p_of_blank(i),
        beta_p_of_label(i));
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
