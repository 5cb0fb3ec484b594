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
// MANY_CLASSES     256 or more: a frame's normaliser is computed with more
//                  digits only if paths may have more than an eighth of what
//                  the frame has besides its greatest class (has_alternatives)
// SEGMENT          frames between checkpoints
// SIMDGROUPS       of the threadgroup

#include "refinement.h"
#include "threads.h"

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
  for (int i = self.index; i < count; i += self.count) {
    const int64_t at = (int64_t(n) * count + i) * 2;
    const Wide factor = wide_from_bits(factors[at], factors[at + 1]);
    product = normalise(multiply(product, factor));
  }
  product = product_of_lanes(product);
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
#pragma unroll 1
  for (int i = 1; i < SIMDGROUPS; ++i) {
    const Wide factor = products[i];
    product = normalise(multiply(product, factor));
  }
  // Rounding can make z greater than 1 by 1e-14 per frame. It is really greater
  // than 1 with log-probabilities that do not sum to 1, or a blank as a label.
  const float refined = minus_log(product);
  const bool is_rounding = LOGITS && refined < 0.0f && refined > -1e-9f;
  loss[n] = refined == 0.0f || is_rounding ? 0.0f : refined;
}
