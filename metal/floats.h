// A few frames of the recursion in plain floats.
//
// Exponents move slowly. For a span of frames each state's can stand still, its
// *level*: the state's Extended keeps its e, while its m takes all that happens
// and is 0 where no path has come. A step is then five products, three of them
// fused with a sum. Each span begins with m anew at 2^30.
//
// Whatever leaves a float's range is noticed, and the segment done again by the
// steps of recursion.h, which have no limits. What stayed inside is right:
// values of every second frame are 2^-56 at least and no probability is below
// 2^-35, so that those between are at least 2^-91, and something lost to
// underflow, below 2^-126, was to be added to something 2^35 times as large.
// For the same reason nothing becomes 0 before it is noticed.

#include "place.h"

constant constexpr int span = 4; // frames
constant constexpr int start_exponent = 30;
constant constexpr uint least_float = (127 - 56) << 23; // the bits of 2^-56
constant constexpr uint greatest_float = (127 + 110) << 23; // of 2^110
constant constexpr uint most_doublings = 35; // of a probability, either way

struct Floats {
  float blank;
  float label;
};

// The greatest of the lanes' floats. Their bits are compared, as integers.
METAL_FUNC float greatest_of_lanes(float x) {
  const int bits = as_type<int>(x);
  const int order = bits ^ ((bits >> 31) & 0x7fffffff);
  const int greatest = metal::simd_max(order);
  return as_type<float>(greatest ^ ((greatest >> 31) & 0x7fffffff));
}

// 2^(from - to), 0 or infinity beyond a float; 0 for a forbidden step.
METAL_FUNC float level_ratio(int from, int to, int step) {
  return as_type<float>(uint(metal::clamp(from + step - to, 0, 255)) << 23);
}

// exp(x) over the unit as a float. What is too small or too large for a
// probability becomes NaN, which is noticed.
METAL_FUNC float plain_probability(float x, Unit unit) {
  const float y = x - unit.origin;
  const float shifted = metal::fma(y, log2_e, rounding);
  const float k = shifted - rounding;
  float r = metal::fma(k, -ln_2, y);
  r = metal::fma(k, -ln_2_rest, r);
  const uint e = as_type<uint>(shifted) - uint(unit.bits);
  const uint p = as_type<uint>(exp_near_zero(r)) + (e << 23);
  return e + most_doublings <= 2 * most_doublings
      ? as_type<float>(p)
      : metal::numeric_limits<float>::quiet_NaN();
}

METAL_FUNC Extended never_reached() {
  return Extended{0.0f, zero_exponent};
}

METAL_FUNC bool is_reached(Extended a) {
  return a.m > 0.0f;
}

// The number again, normalised.
METAL_FUNC Extended as_number(Extended a) {
  return choose(is_reached(a), normalise(a), extended_zero());
}

METAL_FUNC Pair as_numbers(Pair a) {
  return Pair{as_number(a.blank), as_number(a.label)};
}

METAL_FUNC Extended from_number(Extended a) {
  return Extended{is_zero(a) ? 0.0f : a.m, a.e};
}

METAL_FUNC Pair from_numbers(Pair a) {
  return Pair{from_number(a.blank), from_number(a.label)};
}

METAL_FUNC Pair with_floats(Pair levels, Floats a) {
  return Pair{
      Extended{a.blank, levels.blank.e}, Extended{a.label, levels.label.e}};
}

// The same number, m at 2^start_exponent.
METAL_FUNC Extended on_new_level(Extended a) {
  constexpr int start = 127 + start_exponent;
  const uint bits = as_type<uint>(a.m);
  const uint m = (bits & 0x007fffffu) | (uint(start) << 23);
  const int e = a.e + int(bits >> 23) - start;
  return Extended{
      is_reached(a) ? as_type<float>(m) : 0.0f,
      is_reached(a) ? e : zero_exponent};
}

METAL_FUNC Pair on_new_levels(Pair a) {
  return Pair{on_new_level(a.blank), on_new_level(a.label)};
}

// In memory what passes between windows with a segment's frames is all their
// floats, then all their levels, as words.
METAL_FUNC Extended edge_number(uint m, uint e) {
  return Extended{as_type<float>(m), as_type<int>(e)};
}

// What enters a window, the lanes with the frames' in turn, on one level for
// each span; NaN where that cannot be, which is noticed.
METAL_FUNC Extended on_common_levels(Extended a) {
  static_assert(span == 4, "lanes are shuffled by 1 and 2");
  const int lane_e = metal::simd_shuffle_xor(a.e, 1);
  int top = metal::simd_shuffle_xor(metal::max(a.e, lane_e), 2);
  if (!metal::simd_all(a.e == lane_e && a.e == top)) {
    const Extended number = as_number(a);
    top = metal::max(number.e, metal::simd_shuffle_xor(number.e, 1));
    top = metal::max(top, metal::simd_shuffle_xor(top, 2));
    const float m =
        number.m * level_ratio(number.e + start_exponent, top, allowed);
    const float nan = metal::numeric_limits<float>::quiet_NaN();
    a.m = is_zero(number) ? 0.0f : (top - number.e <= 80 ? m : nan);
    a.e = top - start_exponent;
  }
  return a;
}

// Where a lane has no states floats stand alone, so that all are reached.
METAL_FUNC Pair with_all(Pair a, bool has_states) {
  return choose(has_states, a, Pair{extended_one(), extended_one()});
}

METAL_FUNC Pair without_others(Pair a, bool has_states) {
  return choose(has_states, a, no_states());
}

METAL_FUNC bool all_reached(Pair a) {
  return metal::simd_all(is_reached(a.blank) && is_reached(a.label));
}

// A state that is out of reach has the level of the state it is reached from.

// For alpha it lies to the left; at last what enters.
METAL_FUNC Pair with_levels_of_alpha(Pair alpha, int entering, int lane) {
  if (all_reached(alpha)) {
    return alpha;
  }
  const bool reached = is_reached(alpha.blank) || is_reached(alpha.label);
  int label = is_reached(alpha.label) ? alpha.label.e : alpha.blank.e;
  label = reached ? label : (lane == 0 ? entering : zero_exponent);
  for (int step = 1; step < 32; step *= 2) {
    const int other = metal::simd_shuffle_up(label, step);
    label = label < least_exponent && lane >= step ? other : label;
  }
  const int before = metal::simd_shuffle_up(label, 1);
  if (!is_reached(alpha.blank)) {
    alpha.blank.e = lane == 0 ? entering : before;
  }
  alpha.label.e = label;
  return alpha;
}

// For w to the right; the window ends with lane `edge_lane`.
METAL_FUNC Pair
with_levels_of_w(Pair w, int entering, int lane, int edge_lane) {
  if (all_reached(w)) {
    return w;
  }
  const bool reached = is_reached(w.blank) || is_reached(w.label);
  int blank = is_reached(w.blank) ? w.blank.e : w.label.e;
  blank = reached ? blank : (lane >= edge_lane ? entering : zero_exponent);
  for (int step = 1; step < 32; step *= 2) {
    const int other = metal::simd_shuffle_down(blank, step);
    blank = blank < least_exponent && lane + step < 32 ? other : blank;
  }
  const int behind = metal::simd_shuffle_down(blank, 1);
  if (!is_reached(w.label)) {
    w.label.e = lane >= edge_lane ? entering : behind;
  }
  w.blank.e = blank;
  return w;
}

// From one state's level to another's, for the steps into this lane's pair.
struct Arrivals {
  float label_before_to_blank;
  float label_before_to_label;
  float blank_to_label;
};

METAL_FUNC Arrivals
arrivals(Pair levels, int entering_level, Place place, int lane) {
  int before = metal::simd_shuffle_up(levels.label.e, 1);
  before = lane == 0 ? entering_level : before;
  return Arrivals{
      level_ratio(before, levels.blank.e, place.into_blank),
      level_ratio(before, levels.label.e, place.jump),
      level_ratio(levels.blank.e, levels.label.e, place.into_label)};
}

METAL_FUNC Floats arrive(Floats a, float label_before, Arrivals to) {
  return Floats{
      metal::fma(to.label_before_to_blank, label_before, a.blank),
      metal::fma(
          to.label_before_to_label,
          label_before,
          metal::fma(to.blank_to_label, a.blank, a.label))};
}

// And for the steps out of it, beta-hat's.
struct Departures {
  float label_to_blank;
  float blank_behind_to_label;
  float label_behind_to_label;
};

METAL_FUNC Departures departures(
    Pair levels,
    int blank_entering,
    int label_entering,
    Place place,
    int lane,
    int edge_lane) {
  int blank = metal::simd_shuffle_down(levels.blank.e, 1);
  int label = metal::simd_shuffle_down(levels.label.e, 1);
  blank = lane >= edge_lane ? blank_entering : blank;
  label = lane >= edge_lane ? label_entering : label;
  return Departures{
      level_ratio(levels.label.e, levels.blank.e, place.into_label),
      level_ratio(blank, levels.label.e, place.into_label),
      level_ratio(label, levels.label.e, place.jump_on)};
}

METAL_FUNC Floats leave(Floats w, Floats behind, Departures to) {
  return Floats{
      metal::fma(to.label_to_blank, w.label, w.blank),
      metal::fma(
          to.label_behind_to_label,
          behind.label,
          metal::fma(to.blank_behind_to_label, behind.blank, w.label))};
}

METAL_FUNC Floats emit(Floats arrived, float p_blank, float p_label) {
  return Floats{arrived.blank * p_blank, arrived.label * p_label};
}

// A frame's step of alpha, as recursion.h has it for numbers.
METAL_FUNC Floats step_of_alpha(
    Floats before,
    float entering,
    Arrivals to,
    float p_blank,
    float p_label,
    int lane) {
  const float from_lane = metal::simd_shuffle_up(before.label, 1);
  const float label_before = lane == 0 ? entering : from_lane;
  return emit(arrive(before, label_before, to), p_blank, p_label);
}

// What the floats have come to, as bits.
struct Extent {
  uint least; // of every second frame; 0 passes for the greatest
  uint greatest; // at the spans' ends: infinity and NaN do not go away
};

METAL_FUNC Extent no_extent() {
  return Extent{0xffffffffu, 0u};
}

// After the span's k-th frame.
METAL_FUNC void note(thread Extent& extent, Floats a, int k) {
  const uint blank = as_type<uint>(a.blank);
  const uint label = as_type<uint>(a.label);
  if (k % 2 == 1) {
    extent.least = metal::min(extent.least, metal::min(blank - 1u, label - 1u));
  }
  if (k == span - 1) {
    extent.greatest = metal::max(extent.greatest, metal::max(blank, label));
  }
}

METAL_FUNC bool stayed_in_range(Extent extent) {
  return extent.least >= least_float && extent.greatest < greatest_float;
}
