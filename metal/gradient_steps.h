// The steps of gradient.metal before the rows are written.

#include "gammas.h"
#include "last_blank_gammas.h"
#include "likely_row.h"

// Of one frame, the greatest score and cotangent / sum of exponentials.
template <bool LOGITS, bool NORMALIZED, typename Sequence>
METAL_FUNC float2 softmax_scale(
    thread const Sequence& sequence,
    WrittenFrames frames,
    int t0, // the first of the frames
    int row,
    float cotangent) {
  // Frames without a path get exp(0) * 0, invalid ones exp(0) * NaN.
  const float nan = metal::numeric_limits<float>::quiet_NaN();
  float2 scale = {0.0f, row < frames.invalid ? nan : 0.0f};
  if (row < frames.with_paths) {
    const float rest = LOGITS ? sequence.softmax_rest(t0 + row) : 0.0f;
    scale.x = LOGITS ? sequence.greatest_logit(t0 + row) : 0.0f;
    scale.y = LOGITS || NORMALIZED ? cotangent / (1.0f + rest) : 0.0f;
  }
  return scale;
}

// After all threads have written the rows of one part: begins the sums of the
// next.
METAL_FUNC void begin_next_part(
    Shared<float> blank_sums, // (frames) of the simdgroup
    bool has_windows,
    int frames,
    int lane) {
  metal::threadgroup_barrier(
      metal::mem_flags::mem_device | metal::mem_flags::mem_threadgroup);
  if (has_windows && lane < frames) {
    blank_sums[lane] = 0.0f;
  }
  metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup);
}

// Stores gamma of the labels of a part, and adds up gamma of all states. The
// simdgroups take the windows in turn.
template <int FRAMES, int CAPACITY, int SEGMENT, typename Scores>
METAL_FUNC void store_gammas(
    Shared<float> gammas, // (FRAMES, CAPACITY) in order of ranks
    int offset, // of the frames in the segment
    Part part,
    GammaTask<SEGMENT, Scores> task,
    Device<const uint64_t> labels, // of the sequence
    int simdgroup,
    int simdgroups,
    int lane) {
  const int S_n = task.segment.S_n;
  int window = part.begin / 32 + simdgroup;
  for (; window < windows_of(part.end); window += simdgroups) {
    const int i = window * 32 + lane;
    // A lane without a label stores its gammas after those of the part's
    // labels.
    const Label label =
        label_of(labels, S_n, task.scores.blank, i, i - part.begin);
    const LabelGammas to = {
        offset, offset + FRAMES, gammas + label.rank, CAPACITY};
    if (task.segment.has_path(window)) {
      const Place place = place_of_label(label, S_n, i);
      add_gammas_of_window(to, task, place, window, lane);
    } else {
      for (int f = offset; f < offset + FRAMES; ++f) {
        *to.at(f) = 0.0f;
      }
    }
  }
  // The next simdgroup in turn computes the last blank.
  if (task.segment.frames.count() > 0 && part.end == S_n &&
      window == windows_of(S_n)) {
    add_last_blank(task, lane);
  }
}

// Finishes the sums of one row: what its gammas are multiplied by, and whether
// its frame is nearly certain. The memory's blank_gammas are the blank_sums of
// the first simdgroup, whose place the sum over all of them takes.
template <int MAX_SIMDGROUPS, int SEGMENT>
METAL_FUNC void finish_sums(
    RowMemory memory,
    Shared<float> blank_sums, // (MAX_SIMDGROUPS, SEGMENT)
    Shared<float> label_sums, // (MAX_SIMDGROUPS, SEGMENT)
    int simdgroups,
    int row,
    int f, // its frame in the segment
    bool has_path,
    bool has_all_labels, // or those of one of several parts
    float cotangent) {
  const GammaSums sums = gamma_sums_of_frame<MAX_SIMDGROUPS, SEGMENT>(
      blank_sums, label_sums, f, simdgroups);
  // With several parts the sum over all labels is not known.
  memory.gamma_scale[row] = -cotangent / (has_all_labels ? sums.all() : 1.0f);
  memory.blank_gammas[row] = sums.blanks;
  memory.certain_frames[row] = has_all_labels && has_path &&
      is_nearly_certain(sums, memory.softmax[row].y, cotangent);
}
