// The factors of z that refine.metal multiplies, of confident sequences with
// many segments or classes: refinement.h. The simdgroups of all threadgroups
// with the same n share a sequence, and each computes one factor.
//
// in   log_probs       (T, N, C) any strides
//      targets         (N, S)
//      input_lengths   (N)
//      target_lengths  (N)
//      normalisers     (N, T, 2) of logits; not read for log-probabilities
//      scan_loss, z, checkpoints: see scan.metal
//      options         blank
// out  factors         (N, simdgroups, 2); not written for other sequences
//
// LOGITS           option of ctc_loss
// MANY_CLASSES     256 or more: a frame's normaliser is computed with more
//                  digits only if paths may have more than an eighth of what
//                  the frame has besides its greatest class (has_alternatives)
// SEGMENT          frames between checkpoints

#include "refinement.h"

const int N = log_probs_shape[1];
const int S = targets_shape[1];
const int lane = int(thread_index_in_simdgroup);
const int simdgroups =
    int(threadgroups_per_grid.x * threads_per_threadgroup.x) / 32;
const int simdgroup =
    int(threadgroup_position_in_grid.x * threads_per_threadgroup.x / 32 +
        simdgroup_index_in_threadgroup);
const int n =
    int(threadgroup_position_in_grid.y +
        threadgroup_position_in_grid.z * threadgroups_per_grid.y);
if (n >= N) {
  return;
}
const int T_n = input_lengths[n * input_lengths_strides[0]];
const Extended z_n = extended_from_bits(z[n]);
if (!is_confident(z_n, scan_loss[n], T_n)) {
  return;
}
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
const Wide factor = factor_of_simdgroup<LOGITS, MANY_CLASSES, SEGMENT>(
    sequence,
    log_probs_shape[2],
    S,
    z_n,
    checkpoints + int64_t(n) * checkpoints_shape[1] * 2 * size_of_checkpoint(S),
    simdgroup,
    simdgroups,
    lane);
if (lane == 0) {
  const int64_t at = (int64_t(n) * simdgroups + simdgroup) * 2;
  factors[at] = mantissa_to_bits(factor.m);
  factors[at + 1] = uint64_t(uint(factor.e));
}
