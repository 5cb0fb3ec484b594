// The probabilities that a segment's frames give the blank and the labels.

#include "floats.h"

// Of a segment, in the order of a scan: its frames are the k-th from `begin` to
// the one before `end`. Others lie behind the sequence's last.
struct Frames {
  int segment;
  int begin;
  int end;
  int first; // frame of the 0th
  int step; // from one to the next
};

METAL_FUNC Frames
frames_of(int turn, int T_n, int size, int segments, bool backward) {
  const int segment = backward ? segments - 1 - turn : turn;
  const int t = segment * size;
  const int frames = metal::min(size, T_n - t);
  return backward ? Frames{segment, size - frames, size, t + size - 1, -1}
                  : Frames{segment, 0, frames, t, 1};
}

METAL_FUNC int frame_at(Frames frames, int k) {
  return frames.first + k * frames.step;
}

METAL_FUNC bool contains(Frames frames, int k) {
  return k >= frames.begin && k < frames.end;
}

// Behind the last frame only blanks follow, for certain. That leaves the ends
// of the paths as they are.
constant constexpr float p_blank_behind = 1.0f;
constant constexpr float p_label_behind = 0.0f;

// The scores of a lane's label, all asked for before the first is used; 0 for
// frames that there are not.
template <int FRAMES, typename Scores>
METAL_FUNC void fetch(
    thread float (&scores)[FRAMES],
    Scores from,
    int64_t stride,
    Frames frames) {
  if (frames.end - frames.begin == FRAMES) {
#pragma unroll
    for (int k = 0; k < FRAMES; ++k) {
      scores[k] = float(*from);
      from += stride;
    }
  } else {
#pragma unroll
    for (int k = 0; k < FRAMES; ++k) {
      scores[k] = 0.0f;
      if (contains(frames, k)) {
        scores[k] = float(*from);
      }
      from += stride;
    }
  }
}

// Of the blank a lane has one frame's, and of the normalisers.
struct FrameScores {
  float blank;
  float greatest; // of all classes; -infinity where there is no frame
};

template <bool LOGITS, typename Blank, typename Normalisers>
METAL_FUNC FrameScores
frame_scores(Blank blank, Normalisers normalisers, bool has_frame) {
  FrameScores scores = {0.0f, -metal::numeric_limits<float>::infinity()};
  if (has_frame) {
    scores.blank = float(*blank);
    scores.greatest = LOGITS ? float(*normalisers) : 0.0f;
  }
  return scores;
}

// From the first lanes' scores, the blank's probabilities and the segment's
// unit.
template <int FRAMES, typename Blanks>
METAL_FUNC Unit make_blanks(
    FrameScores scores,
    bool has_frame,
    Blanks p_blanks, // (FRAMES)
    int lane) {
  const Unit unit = unit_of(greatest_of_lanes(scores.greatest));
  if (lane < FRAMES) {
    p_blanks[lane] =
        has_frame ? plain_probability(scores.blank, unit) : p_blank_behind;
  }
  return unit;
}
