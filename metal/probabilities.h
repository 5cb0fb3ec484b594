// From scores, which are read from log_probs, to emission probabilities.

#include "floats.h"
#include "pointers.h"

// Emission probabilities of the frames of a segment after the sequence's last
// frame: blanks with probability 1, which leaves the path probabilities as they
// are. So every segment has all its frames.
constant constexpr float p_blank_after_end = 1.0f;
constant constexpr float p_label_after_end = 0.0f;

// Loads the scores of a lane's label in all frames of a segment. Frames that
// are not in the sequence get those of the nearest that is. All loads are
// issued before the first value is used.
template <int SEGMENT, typename Scores>
METAL_FUNC void load_scores(
    thread float (&scores)[SEGMENT],
    Scores from,
    int64_t stride,
    Frames frames) {
  if (frames.count() == SEGMENT) {
#pragma unroll
    for (int k = 0; k < SEGMENT; ++k) {
      scores[k] = float(*from);
      from += stride;
    }
  } else {
    from += frames.begin * stride;
#pragma unroll
    for (int k = 0; k < SEGMENT; ++k) {
      scores[k] = float(*from);
      if (k >= frames.begin && k < frames.end - 1) {
        from += stride;
      }
    }
  }
}

// Two scores of one frame: lane k loads those of a segment's k-th frame.
struct FrameScores {
  float blank;
  // The greatest logit, or 0 for log-probabilities; -infinity if the frame is
  // not in the sequence.
  float greatest;
};

template <bool LOGITS, typename Score, typename Normalisers>
METAL_FUNC FrameScores
load_frame_scores(Score blank, Normalisers normalisers, bool has_frame) {
  FrameScores scores = {0.0f, -metal::numeric_limits<float>::infinity()};
  if (has_frame) {
    scores.blank = float(*blank);
    scores.greatest = LOGITS ? float(*normalisers) : 0.0f;
  }
  return scores;
}

// The segment's scale, and the blank's probabilities of all its frames.
template <int SEGMENT>
METAL_FUNC Scale store_p_blanks(
    FrameScores scores,
    bool has_frame,
    Shared<float> p_blanks, // (SEGMENT)
    int lane) {
  const Scale scale = scale_of(greatest_of_lanes(scores.greatest));
  if (lane < SEGMENT) {
    p_blanks[lane] =
        has_frame ? float_probability(scores.blank, scale) : p_blank_after_end;
  }
  return scale;
}
