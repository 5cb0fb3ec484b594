// How much alpha grows in a segment: its factor of z, for the loss of confident
// sequences (refine.metal). One simdgroup computes a segment.

#include "boundary.h"
#include "sequence.h"
#include "wide.h"

using WidePair = PairOf<Wide>;

// Logits relative to the frame's greatest, or log-probabilities (greatest = 0).
template <bool LOGITS>
METAL_FUNC Wide emission(float score, float greatest) {
  return LOGITS ? wide(exp_of_difference(score, greatest)) : wide_exp(score);
}

// Lane f has what belongs to the segment's f-th frame.
struct FrameEmissions {
  float greatest;
  Wide p_blank;
};

template <bool LOGITS, typename Sequence>
METAL_FUNC FrameEmissions emissions_of_frames(
    thread const Sequence& sequence,
    int begin,
    int count,
    int lane) {
  FrameEmissions frame = {0.0f, wide(extended_one())};
  if (lane < count) {
    const int t = begin + lane;
    frame.greatest = LOGITS ? sequence.greatest_logit(t) : 0.0f;
    frame.p_blank =
        emission<LOGITS>(sequence.score(t, sequence.blank), frame.greatest);
  }
  return frame;
}

// The paths before and after a segment, in each lane the sum of its states.
struct Crossings {
  Wide before; // alpha at the first boundary times beta_p behind it
  Wide after; // alpha at the second boundary times beta_p behind it
};

METAL_FUNC Wide crossing(WidePair sums, Pair beta_p) {
  return normalise(
      add(multiply(sums.blank, wide(beta_p.blank)),
          multiply(sums.label, wide(beta_p.label))));
}

// The sums over the predecessors for the k-th frame. Lane k of `entering` has
// the label that enters the window with it; that of `leaving` gets the one that
// leaves.
METAL_FUNC WidePair predecessor_sums_of_frame(
    WidePair alpha,
    Wide entering,
    thread Wide& leaving,
    int skip,
    int k,
    int lane) {
  const Wide from_window = value_of_lane(entering, k);
  const Wide from_lane = shuffle_up(alpha.label);
  leaving = choose(lane == k, value_of_lane(alpha.label, 31), leaving);
  return sum_of_predecessors(
      alpha, choose(lane == 0, from_window, from_lane), skip);
}

// Adds the crossings of one window of 32 pairs. `passing` is what enters it,
// and on return what leaves it.
template <bool LOGITS, typename Sequence>
METAL_FUNC void add_crossings_of_window(
    thread Crossings& crossings,
    thread Wide& passing,
    thread const Sequence& sequence,
    int begin, // the frames
    int count,
    FrameEmissions frames,
    PairAtBoundary before,
    PairAtBoundary after,
    int i, // of this lane's pair
    int skip,
    int lane) {
  const bool has_label = i < sequence.S_n;
  const int y = has_label ? sequence.class_of_label(i) : sequence.blank;
  const Wide zero = wide(extended_zero());
  WidePair alpha = {wide(before.alpha.blank), wide(before.alpha.label)};
  Wide leaving = zero;
  float next_score = sequence.score(begin, y);
#pragma unroll 1
  for (int k = 0; k <= count; ++k) {
    const float score = next_score;
    if (k + 1 < count) {
      next_score = sequence.score(begin + k + 1, y);
    }
    const WidePair sums =
        predecessor_sums_of_frame(alpha, passing, leaving, skip, k, lane);
    if (k == 0 || k == count) {
      const Wide more =
          crossing(sums, choose(k == 0, before.beta_p, after.beta_p));
      const Wide sum =
          add(choose(k == 0, crossings.before, crossings.after), more);
      crossings.before = choose(k == 0, sum, crossings.before);
      crossings.after = choose(k == 0, crossings.after, sum);
    }
    const Wide p =
        emission<LOGITS>(score, metal::simd_broadcast(frames.greatest, k));
    const WidePair next = emit(
        sums, value_of_lane(frames.p_blank, k), choose(has_label, p, zero));
    alpha = WidePair{normalise(next.blank), normalise(next.label)};
  }
  passing = leaving;
}

// The crossings of all windows in which paths are.
template <bool LOGITS, typename Sequence>
METAL_FUNC Crossings crossings_of_segment(
    thread const Sequence& sequence,
    Boundary before,
    Boundary after,
    Extended z,
    FrameEmissions frames,
    int lane) {
  const int S_n = sequence.S_n;
  const Wide zero = wide(extended_zero());
  Crossings crossings = {zero, zero};
  Wide passing = zero;
  const Band band = band_of(before.t, after.t, sequence.T_n, S_n);
  const int last = metal::min(band.last, S_n) / 32;
  for (int w = metal::max(band.first, 0) / 32; w <= last; ++w) {
    const int i = w * 32 + lane;
    const int skip = step_if(may_skip_blank(sequence, i - 1, i)) - allowed;
    // A window takes more frames to pass than a segment has, so its paths are
    // at one of the boundaries.
    const PairAtBoundary start = before.pair(i);
    const PairAtBoundary end = after.pair(i);
    const bool has_paths = before.is_crossed(start, i, skip, z) ||
        after.is_crossed(end, i, skip, z);
    if (metal::simd_all(!has_paths)) {
      passing = zero;
    } else {
      add_crossings_of_window<LOGITS>(
          crossings,
          passing,
          sequence,
          before.t,
          after.t - before.t,
          frames,
          start,
          end,
          i,
          skip,
          lane);
    }
  }
  return crossings;
}

// The segment's factor of z: the paths after it over the paths before it. That
// of logits lacks the frames' normalisers.
template <bool LOGITS, typename Sequence>
METAL_FUNC Wide growth_of_segment(
    thread const Sequence& sequence,
    Extended z,
    Boundary before,
    Boundary after,
    int lane) {
  const int count = after.t - before.t;
  const FrameEmissions frames =
      emissions_of_frames<LOGITS>(sequence, before.t, count, lane);
  const Crossings crossings =
      crossings_of_segment<LOGITS>(sequence, before, after, z, frames, lane);
  const Wide growth = sum_of_lanes(crossings.after);
  if (before.t == 0) {
    return growth;
  }
  return normalise(quotient(growth, sum_of_lanes(crossings.before)));
}
