// One round of the scan: as many windows as the threadgroup has room for, over
// all frames.

#include "last_blank_scan.h"
#include "scan_steps.h"

// The round of the `first`-th window of the scan and those after it. Invalid
// scores make `valid` false.
template <bool LOGITS, bool ROUNDS, int SEGMENT, typename Sequence>
METAL_FUNC void scan_round(
    thread bool& valid,
    thread const Scan<SEGMENT, Sequence>& scan,
    int first,
    Threads self) {
  // The first simdgroups of all windows come before the second ones.
  const bool is_second = self.simdgroup >= scan.slots;
  const int slot = self.simdgroup % scan.slots;
  const int windows = metal::min(scan.slots, scan.windows - first);
  const ScanWindow window =
      window_of_scan<LOGITS>(scan, first, windows, slot, self.lane);

  // The second simdgroup uses the loaded scores and last_blank, the first uses
  // state; both use the outputs.
  LoadedScores<SEGMENT> loaded = no_loaded_scores<SEGMENT>();
  ScanOutputs outputs = outputs_of(scan, window, self.lane);
  LevelledPair state = initial_state(scan, window.place);
  Extended last_blank =
      scan.sequence.S_n == 0 ? extended_one() : extended_zero();

  // In each phase all windows advance by a segment.
  for (int phase = -2; phase < scan.segments + windows; ++phase) {
    const int turn = phase - slot;
    if (is_second) {
      prepare_probabilities<LOGITS>(
          loaded, valid, scan, window, turn + 1, self.lane);
      scan_last_blank(last_blank, outputs, scan, window, turn - 1, self.lane);
    } else {
      scan_segment<ROUNDS>(state, outputs, scan, window, turn, self.lane);
    }
    metal::threadgroup_barrier(
        metal::mem_flags::mem_device | metal::mem_flags::mem_threadgroup);
  }
  store_final_states(scan, window, is_second, state, last_blank, self.lane);
}
