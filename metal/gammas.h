// gamma in one window of 32 pairs of states over one segment of frames: alpha
// and w again, from what the scan has left. A simdgroup does it on its own.
//
// Until w has come back to a frame alpha waits where gamma will be: the blank's
// in a register, the label's in threadgroup memory.

#include "classes.h"
#include "last_blank.h"
#include "segment.h"

// The scores from the segment's first frame on, and what their probabilities
// are measured in.
template <typename Scores>
struct Emissions {
  Scores scores;
  int64_t stride; // from frame to frame
  int64_t class_stride;
  int blank; // its class
  Unit unit;
};

template <typename Scores>
METAL_FUNC Emissions<Scores> emissions_of(
    Scores scores,
    int64_t stride,
    int64_t class_stride,
    int blank,
    Unit unit) {
  return Emissions<Scores>{scores, stride, class_stride, blank, unit};
}

template <typename Scores>
METAL_FUNC Scores of_class(Emissions<Scores> emissions, int c) {
  return emissions.scores + c * emissions.class_stride;
}

// The lane that has the window's last label.
METAL_FUNC int edge_lane_of(Segment segment, Place place, int lane) {
  return metal::min(31, segment.S_n - 1 - place.label + lane);
}

// The frames whose labels' gammas are wanted, and where a lane's go.
template <typename Labels>
struct Wanted {
  int begin;
  int end;
  Labels labels; // of the first frame
  int stride; // to the next frame's
};

template <typename Labels>
METAL_FUNC Wanted<Labels>
wanted(int begin, int end, Labels labels, int stride) {
  return Wanted<Labels>{begin, end, labels, stride};
}

template <typename Labels>
METAL_FUNC bool contains(Wanted<Labels> wanted, int f) {
  return f >= wanted.begin && f < wanted.end;
}

template <typename Labels>
METAL_FUNC Labels label_at(Wanted<Labels> wanted, int f) {
  return wanted.labels + (f - wanted.begin) * wanted.stride;
}

// 2^d in two factors, for one float may not hold it. With these, neither takes
// a float out of range.
struct Factors {
  float first;
  float second;
};

constant constexpr int most_factor = 32;

METAL_FUNC Factors factors_of(int d) {
  const int e = metal::min(d, most_factor) >> 1;
  return Factors{power_of_two(e), power_of_two(d - e)};
}

// gamma = alpha beta-hat / Z in floats. Tells whether they were in range.
template <
    int FRAMES,
    typename Labels,
    typename Scores,
    typename Blanks,
    typename Probabilities>
METAL_FUNC bool gammas_in_floats(
    thread float (&gamma_blank)[FRAMES],
    Wanted<Labels> wanted,
    Segment segment,
    Place place,
    Ends ends,
    Emissions<Scores> emissions,
    Blanks p_blank, // (FRAMES)
    Probabilities p_labels, // room for this lane's (FRAMES), 32 apart
    Extended z,
    int lane) {
  float scores[FRAMES];
  fetch(scores, of_class(emissions, place.y), emissions.stride, segment.frames);
  const Extended left = on_common_levels(ends.left);
  const Extended right_blank = on_common_levels(ends.right.blank);
  const Extended right_label = on_common_levels(ends.right.label);
#pragma unroll
  for (int f = 0; f < FRAMES; ++f) {
    const float p = plain_probability(scores[f], emissions.unit);
    p_labels[f * 32] = contains(segment.frames, f) ? p : p_label_behind;
  }

  Pair alpha = with_all(ends.alpha, place.has_states);
  Extent extent = no_extent();
  Pair alpha_levels[FRAMES / span];
#pragma unroll
  for (int begin = 0; begin < FRAMES; begin += span) {
    const int level = metal::simd_broadcast(left.e, begin);
    alpha = with_levels_of_alpha(on_new_levels(alpha), level, lane);
    const Arrivals to = arrivals(alpha, level, place, lane);
    Floats floats = Floats{alpha.blank.m, alpha.label.m};
#pragma unroll
    for (int k = 0; k < span; ++k) {
      const int f = begin + k;
      const float from_window = metal::simd_broadcast(left.m, f);
      floats = step_of_alpha(
          floats, from_window, to, p_blank[f], p_labels[f * 32], lane);
      note(extent, floats, k);
      gamma_blank[f] = floats.blank;
      if (contains(wanted, f)) {
        *label_at(wanted, f) = floats.label;
      }
    }
    alpha = with_floats(alpha, floats);
    alpha_levels[begin / span] = alpha;
  }

  const int edge_lane = edge_lane_of(segment, place, lane);
  const float inverse_z = 1.0f / z.m;
  Pair w = with_all(ends.w, place.has_states);
  int factor = 0; // the greatest, as an exponent
#pragma unroll
  for (int begin = FRAMES - span; begin >= 0; begin -= span) {
    const int level_of_blank = metal::simd_broadcast(right_blank.e, begin);
    const int level_of_label = metal::simd_broadcast(right_label.e, begin);
    w = with_levels_of_w(
        on_new_levels(w),
        metal::max(level_of_blank, level_of_label),
        lane,
        edge_lane);
    const Departures onward =
        departures(w, level_of_blank, level_of_label, place, lane, edge_lane);
    const Pair levels = alpha_levels[begin / span];
    const int of_blank =
        place.has_states ? levels.blank.e + w.blank.e - z.e : zero_exponent;
    const int of_label =
        place.has_states ? levels.label.e + w.label.e - z.e : zero_exponent;
    factor = metal::max(factor, metal::max(of_blank, of_label));
    Factors blank = factors_of(of_blank);
    Factors label = factors_of(of_label);
    blank.second *= inverse_z;
    label.second *= inverse_z;
    Floats floats = Floats{w.blank.m, w.label.m};
#pragma unroll
    for (int k = 0; k < span; ++k) {
      const int f = begin + span - 1 - k;
      const Floats enters = Floats{
          metal::simd_broadcast(right_blank.m, f),
          metal::simd_broadcast(right_label.m, f)};
      const Floats from_lane = Floats{
          metal::simd_shuffle_down(floats.blank, 1),
          metal::simd_shuffle_down(floats.label, 1)};
      const Floats behind = Floats{
          lane >= edge_lane ? enters.blank : from_lane.blank,
          lane >= edge_lane ? enters.label : from_lane.label};
      const Floats beta = leave(floats, behind, onward); // beta-hat
      gamma_blank[f] *= blank.first;
      gamma_blank[f] *= beta.blank * blank.second;
      if (contains(wanted, f)) {
        const auto gamma = label_at(wanted, f);
        *gamma = *gamma * label.first * (beta.label * label.second);
      }
      floats = emit(beta, p_blank[f], p_labels[f * 32]);
      note(extent, floats, k);
    }
    w = with_floats(w, floats);
  }
  return metal::simd_all(stayed_in_range(extent) && factor <= most_factor);
}

// The same without limits, in the segment's frames. Rarely needed, so alpha is
// rebuilt for each frame from the segment's start, rather than kept.
template <int FRAMES, typename Labels, typename Scores>
METAL_FUNC void gammas_without_limits(
    thread float (&gamma_blank)[FRAMES],
    Wanted<Labels> wanted,
    Segment segment,
    Place place,
    Ends ends,
    Emissions<Scores> emissions,
    Extended z,
    int lane) {
  const int edge_lane = edge_lane_of(segment, place, lane);
  const auto blank = of_class(emissions, emissions.blank);
  const auto label = of_class(emissions, place.y);
  const Extended left = as_number(ends.left);
  const Pair right = as_numbers(ends.right);
  Pair w = as_numbers(ends.w);
#pragma unroll 1
  for (int last = segment.frames.end - 1; last >= 0; --last) {
    Pair alpha = as_numbers(ends.alpha);
    Extended p_blank = extended_zero();
    Extended p_label = extended_zero();
#pragma unroll 1
    for (int f = 0; f <= last; ++f) {
      const int64_t at = f * emissions.stride;
      p_blank = probability(float(blank[at]), emissions.unit);
      if (place.has_states) {
        p_label = probability(float(label[at]), emissions.unit);
      }
      alpha = step_of_alpha(
          alpha,
          broadcast(left, f),
          place.jump - allowed,
          p_blank,
          p_label,
          lane);
    }
    const Pair behind = choose(
        lane >= edge_lane,
        Pair{broadcast(right.blank, last), broadcast(right.label, last)},
        Pair{shuffle_down(w.blank), shuffle_down(w.label)});
    const Pair beta = leave(w, behind, place.jump_on - allowed); // beta-hat
    const float of_blank = gamma(alpha.blank, beta.blank, z);
#pragma unroll
    for (int f = 0; f < FRAMES; ++f) {
      gamma_blank[f] = f == last ? of_blank : gamma_blank[f];
    }
    if (contains(wanted, last)) {
      *label_at(wanted, last) = gamma(alpha.label, beta.label, z);
    }
    w = normalise(emit(beta, p_blank, p_label));
  }
}

// The first COUNT numbers of each lane added to those of another lane, half of
// the sums to either.
template <int COUNT, int ROOM>
METAL_FUNC void halve(thread float (&x)[ROOM], int step, int lane) {
  const bool upper = (lane & step) != 0;
#pragma unroll
  for (int k = 0; k < COUNT / 2; ++k) {
    const float kept = upper ? x[k + COUNT / 2] : x[k];
    const float given = upper ? x[k] : x[k + COUNT / 2];
    x[k] = kept + metal::simd_shuffle_xor(given, step);
  }
}

// Sums over the lanes in a fixed order, so that every run gives the same bits:
// that of x[f] in the lanes from 32 / COUNT * f on. (A loop over the halvings
// would not be unrolled, and index x in memory.)
template <int COUNT>
METAL_FUNC float sums_of_lanes(thread float (&x)[COUNT], int lane) {
  static_assert(COUNT == 8 || COUNT == 16, "a segment's frames");
  int step = 16;
  if (COUNT == 16) {
    halve<COUNT>(x, step, lane);
    step /= 2;
  }
  halve<8>(x, step, lane);
  halve<4>(x, step / 2, lane);
  halve<2>(x, step / 4, lane);
  for (step /= 8; step > 0; step /= 2) {
    x[0] += metal::simd_shuffle_xor(x[0], step);
  }
  return x[0];
}

// A window's gammas: its labels' where they are wanted, and over all its states
// added to a simdgroup's sums, for the blanks and for all states.
template <
    int FRAMES,
    typename Labels,
    typename Tables,
    typename Scores,
    typename Blanks,
    typename Probabilities,
    typename Sums>
METAL_FUNC void add_window(
    Wanted<Labels> wanted,
    Segment segment,
    Place place,
    Tables tables,
    Emissions<Scores> emissions,
    Blanks p_blank, // (FRAMES)
    Probabilities p_labels, // room for this lane's (FRAMES), 32 apart
    Extended z,
    int window,
    Sums of_blanks, // (FRAMES)
    Sums of_all, // (FRAMES)
    int lane) {
  const Ends ends = ends_of(segment, FRAMES, place, tables, window, lane);
  float blanks[FRAMES];
  if (!gammas_in_floats(
          blanks,
          wanted,
          segment,
          place,
          ends,
          emissions,
          p_blank,
          p_labels,
          z,
          lane)) {
    gammas_without_limits(
        blanks, wanted, segment, place, ends, emissions, z, lane);
  }
  float all[FRAMES];
#pragma unroll
  for (int f = 0; f < FRAMES; ++f) {
    all[f] = blanks[f] + (contains(wanted, f) ? *label_at(wanted, f) : 0.0f);
  }
  const float sum_of_all = sums_of_lanes(all, lane);
  const float sum_of_blanks = sums_of_lanes(blanks, lane);
  constexpr int LANES = 32 / FRAMES; // that have the same sum
  if (lane % LANES == 0) {
    of_blanks[lane / LANES] += sum_of_blanks;
    of_all[lane / LANES] += sum_of_all;
  }
}

// Adds the last blank's gamma to them, in every frame of the segment.
template <
    int FRAMES,
    typename Tables,
    typename Scores,
    typename Blanks,
    typename Sums>
METAL_FUNC void add_last_blank(
    Segment segment,
    Tables tables,
    Emissions<Scores> emissions,
    Blanks p_blank,
    Extended z,
    Sums of_blanks,
    Sums of_all,
    int lane) {
  const int window = windows_of(segment.S_n) - 1; // of the last label
  const int f = lane % FRAMES;
  float gamma = segment.S_n == 0 ? 1.0f : 0.0f;
  if (segment.S_n > 0 && has_path(segment, window)) {
    Extended before = never_reached();
    if (has_alpha_before(segment, FRAMES, window)) {
      before = unpack(tables.alpha[2 * segment.S_n]);
    }
    gamma = last_blank_gamma<FRAMES>(
        as_number(before),
        as_number(edge_of(tables, 0, window + 1, FRAMES, f)),
        number_of(
            p_blank[f],
            of_class(emissions, emissions.blank) + f * emissions.stride,
            emissions.unit),
        as_number(edge_of(tables, 1, window, FRAMES, f)),
        z,
        lane);
  }
  metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup);
  if (lane < FRAMES) {
    of_blanks[lane] += gamma;
    of_all[lane] += gamma;
  }
}
