// The last blank in the scan (last_blank.h). The second simdgroup of the last
// window computes it, one segment after the window's first simdgroup.

#include "last_blank.h"
#include "scan_steps.h"

// Advances alpha (or beta_p) of the last blank over the segment of `turn`.
template <int SEGMENT, typename Scores>
METAL_FUNC void scan_last_blank(
    thread Extended& last_blank,
    Scan<SEGMENT> scan,
    ScanWindow window,
    int turn,
    ScanMemory<SEGMENT> memory,
    thread ScanOutputs& outputs,
    Scores blank_scores, // (T)
    int64_t frame_stride,
    int lane) {
  const int k = lane % SEGMENT;
  const Frames frames = scan.frames(turn);
  Extended label = unreached();
  if (scan.S_n > 0) {
    const Shared<uint> inbox = memory.inbox_of(0, turn);
    label = edge_value(inbox[k], inbox[k + SEGMENT]);
  }
  last_blank = last_blank_after<SEGMENT>(
      last_blank,
      to_extended(label),
      extended_p_blank(
          memory.p_blanks_of(turn)[k],
          blank_scores + frames.at(k) * frame_stride,
          memory.scales[turn % ring_segments]),
      lane);
  if (turn < window.turns.last && lane == 0) {
    outputs.checkpoint[scan.backward ? 0 : 2 * scan.S_n] =
        extended_to_bits(from_extended(last_blank));
  }
  advance(outputs, frames.step);
}
