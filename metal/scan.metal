// Alpha and beta_p over all frames of a sequence, and the loss. recursion.h has
// the equations, and tests/reference.py a float64 version (arrivals) with which
// the tests compare the kernels.
//
// Threadgroup y = 0 of a sequence scans alpha, y = 1 scans beta_p, and y = 2
// sorts the labels by class for the gradient.
//
// A lane holds one pair of states in registers for all frames, and a simdgroup
// a window of 32 pairs. All that passes from one window to the next is a label,
// and it passes in one direction. So each window is one segment of frames
// behind the window before it, and all meet at one barrier per segment. A
// target with more windows than the threadgroup has room for is scanned in
// rounds.
//
// Each window has two simdgroups. The second loads scores two segments ahead
// and converts them to probabilities one segment ahead, so that the recursion
// of the first waits for neither memory nor exp. That of the last window also
// computes the last blank, one segment behind.
//
// in   log_probs       (T, N, C) any strides
//      targets         (N, S)
//      input_lengths   (N)
//      target_lengths  (N)
//      normalisers     (N, T, 2) of logits; not read for log-probabilities
//      options         blank, zero_infinity
// out  scan_loss       (N); refine.metal adds digits to small ones
//      z               (N) total probability, without the frames' normalisers;
//                      see tables.h for those of invalid sequences
//      checkpoints, edges, classes, labels, label_of_rank: see tables.h
//
// There are B = ceil(T / SEGMENT) segments, V = ceil(S / 32) windows and
// P = ceil(S / PART) parts, each at least 1.
//
// LOGITS         option of ctc_loss
// ROUNDS         whether a target can need several rounds
// SEGMENT        frames between checkpoints
// PART           labels of a part (classes.h)
// MAX_WINDOWS    windows that the threadgroup has room for

#include "loss.h"
#include "range_check.h"
#include "scan_round.h"
#include "sort.h"

static_assert(ring_segments >= MAX_WINDOWS + 3, "all segments in use fit");

threadgroup float p_labels[MAX_WINDOWS * 2 * SEGMENT * 32];
threadgroup float p_blanks[ring_segments * SEGMENT];
threadgroup Scale scales[ring_segments];
threadgroup uint inbox[MAX_WINDOWS * 2 * 2 * SEGMENT];
threadgroup uint64_t final_states[2];
threadgroup uint64_t products[2 * MAX_WINDOWS]; // of normalisers
threadgroup int flags[2 * MAX_WINDOWS];

const int n = int(threadgroup_position_in_grid.x);
#include "sequence.inc"
const int task = int(threadgroup_position_in_grid.y);
const bool in_range = check_range(sequence, T, S, C, -1, flags, self);

if (task == 2) {
  sort_by_class<PART>(sequence, n, C, S, classes, labels, label_of_rank, self);
  return;
}

const bool backward = task == 1;
const int slots = self.simdgroups() / 2; // windows of a round
const ScanMemory<SEGMENT> memory =
    {p_labels, p_blanks, scales, inbox, final_states};
const auto tables = scan_tables_of<SEGMENT>(n, T, S, checkpoints, edges);
const auto scan = scan_of(sequence, memory, tables, backward, slots);
bool valid = true;
for (int first = 0; first < scan.windows; first += slots) {
  scan_round<LOGITS, ROUNDS>(valid, scan, first, self);
}
if (backward) {
  return;
}

if (LOGITS) {
  store_products(products, valid, sequence, SEGMENT, self);
}
valid = all_of_threadgroup(valid, flags, self) && in_range;
if (self.index == 0) {
  const Extended z_n =
      choose(valid, sum_of_final_states(final_states), invalid_z(in_range));
  const bool zero_infinity = options[1] != 0;
  const int count = LOGITS ? self.simdgroups() : 0; // of products
  z[n] = extended_to_bits(z_n);
  scan_loss[n] = loss_of(z_n, products, count, sequence.T_n, zero_infinity);
}
