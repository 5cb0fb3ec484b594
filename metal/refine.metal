// The loss of confident sequences with more digits than the scan has.
//
// Where z is near 1 the loss is what z lacks of it, perhaps 1e-8 per frame, and
// the scan rounds by 1e-7 in every frame. So if the loss is small for the
// number of frames, z is computed again from the scan's checkpoints:
//
//   z = alpha(0) M(0) beta_p(1)  *  alpha(1) M(1) beta_p(2)  *  ...
//       -----------------------     -----------------------
//                  1                   alpha(1) beta_p(1)
//
// alpha(b) and beta_p(b) are what the scan has stored at the b-th boundary
// between segments, and M(b) is the recursion over segment b, with mantissas of
// two floats (wide.h). Each stored vector is in one numerator and in one
// denominator, so that its scale cancels. The product is z if the alphas are
// exact, for then each numerator has the next denominator as a factor, and also
// if the beta_ps are. So its error is that of alpha times that of beta_p, about
// 1e-6 * 1e-6.
//
// A threadgroup has a sequence; its simdgroups take the segments in turn.
//
// in   log_probs       (T, N, C) any strides
//      targets         (N, S)
//      input_lengths   (N)
//      target_lengths  (N)
//      normalisers     (N, T, 2) of logits; not read for log-probabilities
//      scan_loss, z, checkpoints: see scan.metal
//      options         blank
// out  loss            (N)
//
// LOGITS           option of ctc_loss
// SEGMENT          frames between checkpoints
// SIMDGROUPS       of the threadgroup

#include "growth.h"

// The scan's loss is within 1e-6 of its value if that is greater, in nats per
// frame: its float operations have errors of 5e-7 per frame in sum.
constexpr float confident_loss = 0.5f;

threadgroup Wide growths[SIMDGROUPS];

const int simdgroup = int(simdgroup_index_in_threadgroup);
const int lane = int(thread_index_in_simdgroup);
const bool is_first_thread = simdgroup == 0 && lane == 0;
const int n = int(threadgroup_position_in_grid.x);
const int T_n = input_lengths[n * input_lengths_strides[0]];
const float scan_loss_n = scan_loss[n];
const Extended z_n = extended_from_bits(z[n]);
if (is_invalid(z_n) || is_zero(z_n) ||
    scan_loss_n > confident_loss * float(T_n)) {
  if (is_first_thread) {
    loss[n] = scan_loss_n;
  }
  return;
}

const int C = log_probs_shape[2];
const int S = targets_shape[1];
const auto sequence = sequence_of(
    n,
    log_probs_shape[0],
    T_n,
    target_lengths[n * target_lengths_strides[0]],
    options[0],
    log_probs,
    log_probs_strides,
    targets,
    targets_strides,
    normalisers);
const auto checkpoints_n =
    checkpoints + int64_t(n) * checkpoints_shape[1] * 2 * size_of_checkpoint(S);
const int segments = (T_n + SEGMENT - 1) / SEGMENT;
Wide product = wide(extended_one());
for (int b = simdgroup; b < segments; b += SIMDGROUPS) {
  const Wide growth = growth_of_segment<LOGITS>(
      sequence,
      C,
      z_n,
      boundary_before(b, SEGMENT, sequence, checkpoints_n, S),
      boundary_before(b + 1, SEGMENT, sequence, checkpoints_n, S),
      lane);
  product = normalise(multiply(product, growth));
}
if (lane == 0) {
  growths[simdgroup] = product;
}
metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
if (is_first_thread) {
  for (int i = 1; i < SIMDGROUPS; ++i) {
    const Wide growth = growths[i];
    product = normalise(multiply(product, growth));
  }
  // Rounding can make z greater than 1 by 1e-14 per frame. It is really greater
  // than 1 with log-probabilities that do not sum to 1, or a blank as a label.
  const float refined = minus_log(product);
  const bool is_rounding = LOGITS && refined < 0.0f && refined > -1e-9f;
  loss[n] = refined == 0.0f || is_rounding ? 0.0f : refined;
}
