// The loss, of confident sequences with more digits than the scan's:
// refinement.h. A threadgroup has a sequence.
//
// in   log_probs       (T, N, C) any strides
//      targets         (N, S)
//      input_lengths   (N)
//      target_lengths  (N)
//      normalisers     (N, T, 2) of logits; not read for log-probabilities
//      scan_loss, z, checkpoints: see scan.metal
//      factors         of z: see factors.metal; not read without FACTORS
//      options         blank
// out  loss            (N)
//
// LOGITS           option of ctc_loss
// FACTORS          whether a launch before has computed the factors of z
// MANY_CLASSES     whether there are 256 classes or more: then normalisers are
//                  computed with more digits only in frames in which paths may
//                  have much of what the frame has besides its greatest class
//                  (has_alternatives)
// SEGMENT          frames between checkpoints
// SIMDGROUPS       of the threadgroup

#include "refinement.h"

threadgroup Wide products[SIMDGROUPS];

const int n = int(threadgroup_position_in_grid.x);
#include "sequence.inc"
const float scan_loss_n = scan_loss[n];
const Extended z_n = extended_from_bits(z[n]);
if (!is_confident(z_n, scan_loss_n, sequence.T_n)) {
  if (self.index == 0) {
    loss[n] = scan_loss_n;
  }
  return;
}

Wide product = wide(extended_one());
if (FACTORS) {
  const int count = factors_shape[1];
  product = product_of_factors(factors + int64_t(n) * count * 2, count, self);
} else {
  product = factor_of_simdgroup<LOGITS, MANY_CLASSES, SEGMENT>(
      sequence,
      C,
      S,
      z_n,
      checkpoints +
          int64_t(n) * checkpoints_shape[1] * 2 * size_of_checkpoint(S),
      self.simdgroup,
      SIMDGROUPS,
      self.lane);
}
if (self.lane == 0) {
  products[self.simdgroup] = product;
}
metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
if (self.index == 0) {
  loss[n] = loss_of_products<LOGITS>(products, SIMDGROUPS);
}
