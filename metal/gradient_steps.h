// The steps of gradient.metal before the rows are written.

#include "gammas.h"
#include "last_blank_gammas.h"

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

// Stores gamma of the labels of a part, and adds up gamma of all states. The
// simdgroups take the windows in turn.
template <int FRAMES, int CAPACITY, int SEGMENT, typename Scores>
METAL_FUNC void store_gammas(
    Shared<float> gammas, // (FRAMES, CAPACITY) in order of ranks
    int offset, // of the frames in the segment
    int begin, // the part's first label
    int end,
    Segment<SEGMENT> segment,
    SegmentScores<Scores> scores,
    Device<const uint64_t> labels, // of the sequence
    GammaMemory memory,
    Extended z,
    int simdgroup,
    int simdgroups,
    int lane) {
  const int S_n = segment.S_n;
  int window = begin / 32 + simdgroup;
  for (; window < windows_of(end); window += simdgroups) {
    const int i = window * 32 + lane;
    // A lane without a label stores its gammas after those of the part's
    // labels.
    const Label label = label_of(labels, S_n, scores.blank, i, i - begin);
    const LabelGammas to = {
        offset, offset + FRAMES, gammas + label.rank, CAPACITY};
    if (segment.has_path(window)) {
      const Place place = place_of_label(label, S_n, i);
      add_gammas_of_window(to, segment, place, scores, memory, z, window, lane);
    } else {
      for (int f = offset; f < offset + FRAMES; ++f) {
        *to.at(f) = 0.0f;
      }
    }
  }
  // The next simdgroup in turn computes the last blank.
  if (segment.frames.count() > 0 && end == S_n && window == windows_of(S_n)) {
    add_last_blank(segment, scores, memory, z, lane);
  }
}
