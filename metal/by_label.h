// Posteriors by label, in the rows of a segment's frames.

#include "gammas.h"
#include "last_blank_gammas.h"
#include "threads.h"

// Writes gamma of the labels, not divided by the frame's sum yet, and adds up
// gamma of all states. The simdgroups take the windows in turn.
template <int SEGMENT, typename Scores>
METAL_FUNC void write_gammas(
    Device<float> rows, // (frames, S + 1), the blank first
    int S,
    Shared<float> label_gammas, // (SEGMENT) of this lane, with a stride of 32
    GammaTask<SEGMENT, Scores> task,
    Device<const uint64_t> labels, // (S) of the sequence
    Threads self) {
  const int S_n = task.segment.S_n;
  const int frames = task.segment.frames.count();
  const LabelGammas gammas = {0, SEGMENT, label_gammas, 32};
  int window = self.simdgroup;
  for (; window < windows_of(S_n); window += self.simdgroups()) {
    const int i = window * 32 + self.lane;
    const bool has_path = task.segment.has_path(window);
    if (has_path) {
      const Label label = label_of(labels, S_n, task.scores.blank, i, S);
      const Place place = place_of_label(label, S_n, i);
      add_gammas_of_window(gammas, task, place, window, self.lane);
    }
    for (int f = 0; f < frames && i < S_n; ++f) {
      rows[int64_t(f) * (S + 1) + i + 1] = has_path ? *gammas.at(f) : 0.0f;
    }
  }
  // The next simdgroup in turn computes the last blank.
  if (frames > 0 && window == windows_of(S_n)) {
    add_last_blank(task, self.lane);
  }
}

// Completes the rows: the posterior of all blanks together, and the labels'
// gammas times gamma_scale.
METAL_FUNC void complete_rows(
    Device<float> rows, // (frames, S + 1)
    int S,
    int S_n,
    WrittenFrames frames,
    Shared<float> blank_gammas, // (SEGMENT)
    Shared<float> gamma_scale, // (SEGMENT)
    Threads self) {
  const float nan = metal::numeric_limits<float>::quiet_NaN();
  for (int f = 0; f < frames.count; ++f) {
    for (int s = self.index; s <= S; s += self.count) {
      const int64_t at = int64_t(f) * (S + 1) + s;
      float value = f < frames.invalid ? nan : 0.0f;
      if (f < frames.with_paths && s <= S_n) {
        value = s > 0 ? rows[at] * gamma_scale[f] : blank_gammas[f];
      }
      rows[at] = value;
    }
  }
}
