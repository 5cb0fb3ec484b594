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
// MANY_CLASSES     whether there are 256 classes or more: then normalisers are
//                  computed with more digits only in frames in which paths may
//                  have much of what the frame has besides its greatest class
//                  (has_alternatives)
// SEGMENT          frames between checkpoints

#include "refinement.h"

#include "sequence_of_grid.inc"
const Extended z_n = extended_from_bits(z[n]);
if (!is_confident(z_n, scan_loss[n], sequence.T_n)) {
  return;
}

// Of all threadgroups that share the sequence.
const int simdgroups = int(threadgroups_per_grid.x) * self.simdgroups();
const int simdgroup =
    int(threadgroup_position_in_grid.x) * self.simdgroups() + self.simdgroup;
const Wide factor = factor_of_simdgroup<LOGITS, MANY_CLASSES, SEGMENT>(
    sequence,
    C,
    S,
    z_n,
    checkpoints + int64_t(n) * checkpoints_shape[1] * 2 * size_of_checkpoint(S),
    simdgroup,
    simdgroups,
    self.lane);
if (self.lane == 0) {
  const int64_t at = (int64_t(n) * simdgroups + simdgroup) * 2;
  factors[at] = mantissa_to_bits(factor.m);
  factors[at + 1] = uint64_t(uint(factor.e));
}
