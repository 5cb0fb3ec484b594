// The last blank in the scan (last_blank.h). The second simdgroup of the last
// window computes it, one segment after the window's first simdgroup.

#include "last_blank.h"
#include "scan_steps.h"

// Advances alpha (or beta_p) of the last blank over the segment of `turn`.
template <int SEGMENT, typename Sequence>
METAL_FUNC void scan_last_blank(
    thread Extended& last_blank,
    thread ScanOutputs& outputs,
    thread const Scan<SEGMENT, Sequence>& scan,
    ScanWindow window,
    int turn,
    int lane) {
  if (!window.is_last || !window.turns.contains(turn)) {
    return;
  }
  const Sequence sequence = scan.sequence;
  const int k = lane % SEGMENT;
  const Frames frames = scan.frames(turn);
  Levelled label = unreached();
  if (sequence.S_n > 0) {
    const Shared<uint> inbox = scan.memory.inbox_of(0, turn);
    label = edge_value(inbox[k], inbox[k + SEGMENT]);
  }
  last_blank = last_blank_after<SEGMENT>(
      last_blank,
      to_extended(label),
      extended_p_blank(
          scan.memory.p_blanks_of(turn)[k],
          sequence.scores_of_class(sequence.blank) +
              frames.at(k) * sequence.frame_stride,
          scan.memory.scales[turn % ring_segments]),
      lane);
  if (turn < window.turns.last && lane == 0) {
    outputs.checkpoint[scan.backward ? 0 : 2 * sequence.S_n] =
        levelled_to_bits(to_levelled(last_blank));
  }
  advance(outputs, frames.step);
}
