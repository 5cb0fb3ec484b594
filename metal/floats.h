// The recursion in floats, for a span of 4 frames at a time.
//
// A path probability changes its exponent slowly. During a span each state has
// a fixed exponent, its level; a float holds the state's value relative to it.
// One frame of a pair of states is then five products, three of them fused with
// a sum. At the start of a span the levels are chosen anew, so that every float
// is in [2^30, 2^31).
//
// The range of the floats is checked, and a segment with a value out of range
// is computed again by recursion.h, which has no limits. The check is
// sufficient: floats of every second frame are at least 2^-56, and
// probabilities at least 2^-35, so that the frames between have floats of at
// least 2^-91. A term that underflows, below 2^-126, is at most 2^-35 of the
// sum that it belongs to, and no value can become 0 without being noticed
// before.

#include "place.h"

constant constexpr int span_frames = 4;
constant constexpr int start_exponent = 30;
constant constexpr uint least_float = (127 - 56) << 23; // the bits of 2^-56
constant constexpr uint greatest_float = (127 + 110) << 23; // of 2^110
constant constexpr uint probability_exponents = 35; // 2^-35 to 2^35

struct FloatPair {
  float blank;
  float label;
};

// A float and its level: m * 2^e. Unlike in an extended-range number, m is 0
// for a state that no path has reached, and may be NaN.
struct Levelled {
  float m;
  int e;
};

using LevelledPair = PairOf<Levelled>;

// The greatest float of all lanes. It compares integers of the same order, for
// which CUDA has a reduction in one instruction.
METAL_FUNC float greatest_of_lanes(float x) {
  const int bits = as_type<int>(x);
  const int order = bits ^ ((bits >> 31) & 0x7fffffff);
  const int greatest = metal::simd_max(order);
  return as_type<float>(greatest ^ ((greatest >> 31) & 0x7fffffff));
}

// 2^(from - to) for an allowed step, which converts a float from one level to
// another; 0 for a forbidden step. Saturates to 0 or infinity.
METAL_FUNC float level_ratio(int from, int to, int step) {
  return as_type<float>(uint(metal::clamp(from + step - to, 0, 255)) << 23);
}

// exp(score) relative to the scale, as a float. Outside of 2^-35 to 2^35 it has
// any bits, and is_in_range(greatest) becomes false.
METAL_FUNC float
float_probability(float score, Scale scale, thread uint& greatest) {
  const float y = score - scale.origin;
  const NearestPower power = nearest_power(y);
  const uint e = uint(power.bits) - uint(scale.bits);
  const float m = exp_near_zero(rest_of_power(y, power.k));
  const uint p = as_type<uint>(m) + (e << 23);
  greatest = metal::max(greatest, e + probability_exponents);
  return as_type<float>(p);
}

METAL_FUNC bool is_in_range(uint greatest) {
  return greatest <= 2 * probability_exponents;
}

// The same, or NaN if it is not in range, which the range check finds.
METAL_FUNC float float_probability(float score, Scale scale) {
  uint greatest = 0;
  const float p = float_probability(score, scale, greatest);
  return is_in_range(greatest) ? p : metal::numeric_limits<float>::quiet_NaN();
}

// Conversion between floats with levels and extended-range numbers ------------

METAL_FUNC Levelled unreached() {
  return Levelled{0.0f, zero_exponent};
}

METAL_FUNC LevelledPair unreached_pair() {
  return LevelledPair{unreached(), unreached()};
}

METAL_FUNC bool is_reached(Levelled a) {
  return a.m > 0.0f;
}

METAL_FUNC Levelled levelled_one() {
  return Levelled{1.0f, 0};
}

METAL_FUNC Extended to_extended(Levelled a) {
  return choose(is_reached(a), normalise(Extended{a.m, a.e}), extended_zero());
}

METAL_FUNC Pair to_extended(LevelledPair a) {
  return Pair{to_extended(a.blank), to_extended(a.label)};
}

METAL_FUNC Levelled to_levelled(Extended a) {
  return Levelled{is_zero(a) ? 0.0f : a.m, a.e};
}

METAL_FUNC LevelledPair to_levelled(Pair a) {
  return LevelledPair{to_levelled(a.blank), to_levelled(a.label)};
}

METAL_FUNC LevelledPair with_floats(LevelledPair levels, FloatPair a) {
  return LevelledPair{
      Levelled{a.blank, levels.blank.e}, Levelled{a.label, levels.label.e}};
}

// As 64 bits in memory.
METAL_FUNC uint64_t levelled_to_bits(Levelled a) {
  return extended_to_bits(Extended{a.m, a.e});
}

METAL_FUNC Levelled levelled_from_bits(uint64_t bits) {
  const Extended a = extended_from_bits(bits);
  return Levelled{a.m, a.e};
}

METAL_FUNC Levelled choose(bool first, Levelled a, Levelled b) {
  return Levelled{first ? a.m : b.m, first ? a.e : b.e};
}

// Lanes without states hold 1, so that they never fail the range check and
// all_reached() can be true.
METAL_FUNC LevelledPair or_one(LevelledPair a, bool has_states) {
  const Levelled one = levelled_one();
  return LevelledPair{
      choose(has_states, a.blank, one), choose(has_states, a.label, one)};
}

METAL_FUNC Pair or_zero(Pair a, bool has_states) {
  return choose(has_states, a, zero_pair());
}

// Levels ------------------------------------------------------------------

// The same value with its float in [2^30, 2^31), start_exponent.
METAL_FUNC Levelled on_new_level(Levelled a) {
  constexpr int start = 127 + start_exponent;
  const uint bits = as_type<uint>(a.m);
  const uint m = (bits & 0x007fffffu) | (uint(start) << 23);
  const int e = a.e + int(bits >> 23) - start;
  return Levelled{
      is_reached(a) ? as_type<float>(m) : 0.0f,
      is_reached(a) ? e : zero_exponent};
}

METAL_FUNC LevelledPair on_new_levels(LevelledPair a) {
  return LevelledPair{on_new_level(a.blank), on_new_level(a.label)};
}

// What enters a window is stored as the floats of all frames of a segment, then
// the levels of all frames, as 32-bit words.
METAL_FUNC Levelled edge_value(uint m, uint e) {
  return Levelled{as_type<float>(m), as_type<int>(e)};
}

// Lane f has what enters a window with frame f. All frames of a span get one
// level, the greatest of theirs; a float too small for it becomes NaN, which
// the range check finds.
METAL_FUNC Levelled on_levels_of_spans(Levelled a) {
  static_assert(span_frames == 4, "lanes are shuffled by 1 and 2");
  const int neighbour = metal::simd_shuffle_xor(a.e, 1);
  int level = metal::simd_shuffle_xor(metal::max(a.e, neighbour), 2);
  if (!metal::simd_all(a.e == neighbour && a.e == level)) {
    const Extended number = to_extended(a);
    level = metal::max(number.e, metal::simd_shuffle_xor(number.e, 1));
    level = metal::max(level, metal::simd_shuffle_xor(level, 2));
    const float m =
        number.m * level_ratio(number.e + start_exponent, level, allowed);
    const float nan = metal::numeric_limits<float>::quiet_NaN();
    a.m = is_zero(number) ? 0.0f : (level - number.e <= 80 ? m : nan);
    a.e = level - start_exponent;
  }
  return a;
}

METAL_FUNC bool all_reached(LevelledPair a) {
  return metal::simd_all(is_reached(a.blank) && is_reached(a.label));
}

// A state that no path has reached takes the level of the nearest state before
// it (for beta_p: after it) that has been reached, from which paths will come
// in this span; failing that, the level of what enters the window.
METAL_FUNC LevelledPair
with_levels_of_alpha(LevelledPair alpha, int entering, int lane) {
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

// `edge_lane` has the window's last label.
METAL_FUNC LevelledPair with_levels_of_beta_p(
    LevelledPair beta_p,
    int entering,
    int lane,
    int edge_lane) {
  if (all_reached(beta_p)) {
    return beta_p;
  }
  const bool reached = is_reached(beta_p.blank) || is_reached(beta_p.label);
  int blank = is_reached(beta_p.blank) ? beta_p.blank.e : beta_p.label.e;
  blank = reached ? blank : (lane >= edge_lane ? entering : zero_exponent);
  for (int step = 1; step < 32; step *= 2) {
    const int other = metal::simd_shuffle_down(blank, step);
    blank = blank < least_exponent && lane + step < 32 ? other : blank;
  }
  const int next = metal::simd_shuffle_down(blank, 1);
  if (!is_reached(beta_p.label)) {
    beta_p.label.e = lane >= edge_lane ? entering : next;
  }
  beta_p.blank.e = blank;
  return beta_p;
}

// Steps -------------------------------------------------------------------

// The factors of the steps into a lane's pair: each converts from the level of
// the state before to that of the state after, and is 0 for a forbidden step.
struct Predecessors {
  float label_before_to_blank;
  float label_before_to_label;
  float blank_to_label;
};

METAL_FUNC Predecessors predecessors_of(
    LevelledPair levels,
    int entering_level,
    Place place,
    int lane) {
  int before = metal::simd_shuffle_up(levels.label.e, 1);
  before = lane == 0 ? entering_level : before;
  return Predecessors{
      level_ratio(before, levels.blank.e, place.label_before_to_blank),
      level_ratio(before, levels.label.e, place.label_before_to_label),
      level_ratio(levels.blank.e, levels.label.e, place.blank_to_label)};
}

METAL_FUNC FloatPair sum_of_predecessors(
    FloatPair previous,
    float label_before,
    Predecessors factors) {
  return FloatPair{
      metal::fma(factors.label_before_to_blank, label_before, previous.blank),
      metal::fma(
          factors.label_before_to_label,
          label_before,
          metal::fma(factors.blank_to_label, previous.blank, previous.label))};
}

// The factors of the steps out of a lane's pair, for beta.
struct Successors {
  float blank_to_label;
  float label_to_next_blank;
  float label_to_next_label;
};

METAL_FUNC Successors successors_of(
    LevelledPair levels,
    int entering_level_of_blank,
    int entering_level_of_label,
    Place place,
    int lane,
    int edge_lane) {
  int blank = metal::simd_shuffle_down(levels.blank.e, 1);
  int label = metal::simd_shuffle_down(levels.label.e, 1);
  blank = lane >= edge_lane ? entering_level_of_blank : blank;
  label = lane >= edge_lane ? entering_level_of_label : label;
  return Successors{
      level_ratio(levels.label.e, levels.blank.e, place.blank_to_label),
      level_ratio(blank, levels.label.e, place.blank_to_label),
      level_ratio(label, levels.label.e, place.label_to_next_label)};
}

METAL_FUNC FloatPair
sum_of_successors(FloatPair beta_p, FloatPair next, Successors factors) {
  return FloatPair{
      metal::fma(factors.blank_to_label, beta_p.label, beta_p.blank),
      metal::fma(
          factors.label_to_next_label,
          next.label,
          metal::fma(factors.label_to_next_blank, next.blank, beta_p.label))};
}

METAL_FUNC FloatPair emit(FloatPair sums, float p_blank, float p_label) {
  return FloatPair{sums.blank * p_blank, sums.label * p_label};
}

// One frame of alpha, equation 6, as alpha_step() of recursion.h.
METAL_FUNC FloatPair alpha_step(
    FloatPair previous,
    float entering,
    Predecessors factors,
    float p_blank,
    float p_label,
    int lane) {
  const float from_lane = metal::simd_shuffle_up(previous.label, 1);
  const float label_before = lane == 0 ? entering : from_lane;
  return emit(
      sum_of_predecessors(previous, label_before, factors), p_blank, p_label);
}

// One frame of beta, equation 10, as beta_step() of recursion.h.
METAL_FUNC BetaStep<FloatPair> beta_step(
    FloatPair beta_p,
    FloatPair entering,
    Successors factors,
    float p_blank,
    float p_label,
    int lane,
    int edge_lane) {
  const FloatPair from_lane = FloatPair{
      metal::simd_shuffle_down(beta_p.blank, 1),
      metal::simd_shuffle_down(beta_p.label, 1)};
  const FloatPair next = FloatPair{
      lane >= edge_lane ? entering.blank : from_lane.blank,
      lane >= edge_lane ? entering.label : from_lane.label};
  const FloatPair beta = sum_of_successors(beta_p, next, factors);
  return BetaStep<FloatPair>{beta, emit(beta, p_blank, p_label)};
}

// Range check ---------------------------------------------------------------

// The range of a segment's floats, as bits, which for positive floats have the
// same order.
struct Range {
  // Of every second frame, and less by 1: 0, an unreached state, becomes the
  // greatest uint and so is ignored.
  uint least;
  uint greatest; // of the last frame of each span: infinity and NaN persist
};

METAL_FUNC Range empty_range() {
  return Range{0xffffffffu, 0u};
}

// Adds the floats after the k-th frame of a span.
METAL_FUNC void extend(thread Range& range, FloatPair a, int k) {
  const uint blank = as_type<uint>(a.blank);
  const uint label = as_type<uint>(a.label);
  if (k % 2 == 1) {
    range.least = metal::min(range.least, metal::min(blank - 1u, label - 1u));
  }
  if (k == span_frames - 1) {
    range.greatest = metal::max(range.greatest, metal::max(blank, label));
  }
}

METAL_FUNC bool is_exact(Range range) {
  return range.least >= least_float && range.greatest < greatest_float;
}
