// A few frames of the recursion in plain floats.
//
// Exponents move slowly. For the frames of a segment each state's can stand
// still, its *level*, while a float over that level takes all that happens: a
// step is then five products, three of them fused with a sum.
//
// A float has room for a factor of 2^140 down from where it starts. Whatever
// leaves that range is noticed, and the segment done again by the steps of
// recursion.metal, which have no limits. What stayed inside is right: values
// are 2^-80 at least, so that something lost to underflow, below 2^-126, was
// to be added to something 2^46 times as large. And as no probability is below
// 2^-45, nothing becomes 0 before it is noticed: 0 is a state out of reach.

constant constexpr int start_exponent = 60; // a state starts at m * 2^60
constant constexpr float greatest_float = 1.2980742e33f; // 2^110
constant constexpr uint least_float = (127 - 80) << 23; // the bits of 2^-80
constant constexpr uint most_doublings = 45; // of a probability, either way

struct Floats {
  float blank;
  float label;
};

struct Levels {
  int blank;
  int label;
};

// The greatest of the lanes' floats. Their bits are compared, as integers.
METAL_FUNC float greatest_of_lanes(float x) {
  const int bits = as_type<int>(x);
  const int order = bits ^ ((bits >> 31) & 0x7fffffff);
  const int greatest = metal::simd_max(order);
  return as_type<float>(greatest ^ ((greatest >> 31) & 0x7fffffff));
}

// 2^(from - to); 0 or infinity beyond a float.
METAL_FUNC float level_ratio(int from, int to) {
  return as_type<float>(uint(metal::clamp(from - to + 127, 0, 255)) << 23);
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

// Normalised numbers, each over its own exponent.
METAL_FUNC Floats floats_of(Pair a) {
  const float one = level_ratio(start_exponent, 0);
  return Floats{
      is_zero(a.blank) ? 0.0f : a.blank.m * one,
      is_zero(a.label) ? 0.0f : a.label.m * one};
}

// The number that a float stands for, also one that was stored as it was.
METAL_FUNC Extended as_number(Extended a) {
  return a.m > 0.0f ? normalise(a) : extended_zero();
}

METAL_FUNC Extended of_float(float value, int level) {
  return Extended{value, level - start_exponent};
}

METAL_FUNC Pair numbers_of(Floats a, Levels levels) {
  return Pair{
      as_number(of_float(a.blank, levels.blank)),
      as_number(of_float(a.label, levels.label))};
}

// What was the least of all floats so far, as bits. 0 passes for the greatest.
METAL_FUNC uint least_of(uint least, Floats a) {
  return metal::min(
      metal::min(as_type<uint>(a.blank) - 1u, as_type<uint>(a.label) - 1u),
      least);
}

// Whether a segment that ends with `last` has been in range all the time:
// infinity and NaN do not go away.
METAL_FUNC bool stayed_in_range(Floats last, uint least) {
  return least >= least_float && last.blank < greatest_float &&
      last.label < greatest_float;
}

// What enters a window with the frames, all over one level; lane f has frame
// f's number.
METAL_FUNC float entering_float(Extended a, int level) {
  return is_zero(a) ? 0.0f : a.m * level_ratio(a.e + start_exponent, level);
}

METAL_FUNC bool entering_fits(Extended a, int level) {
  return is_zero(a) || level - a.e <= 80;
}

// Which states a lane has. Those behind the last are never reached.
struct Has {
  bool blank;
  bool label;
};

METAL_FUNC bool all_reached(Pair a, Has has) {
  return metal::simd_all(
      !(has.blank && is_zero(a.blank)) && !(has.label && is_zero(a.label)));
}

// A state that is out of reach has the level of the state it is reached from.

// For alpha it lies to the left; at last what enters.
METAL_FUNC Levels levels_of_alpha(Pair alpha, Has has, int entering, int lane) {
  Levels levels = Levels{alpha.blank.e, alpha.label.e};
  if (all_reached(alpha, has)) {
    return levels;
  }
  int label = is_zero(alpha.label) ? levels.blank : levels.label;
  label = label < least_exponent && lane == 0 ? entering : label;
  for (int step = 1; step < 32; step *= 2) {
    const int other = metal::simd_shuffle_up(label, step);
    label = label < least_exponent && lane >= step ? other : label;
  }
  const int before = metal::simd_shuffle_up(label, 1);
  levels.label = label;
  if (is_zero(alpha.blank)) {
    levels.blank = lane == 0 ? entering : before;
  }
  return levels;
}

// For w to the right.
METAL_FUNC Levels levels_of_w(Pair w, Has has, int entering, int lane) {
  Levels levels = Levels{w.blank.e, w.label.e};
  if (all_reached(w, has)) {
    return levels;
  }
  int blank = is_zero(w.blank) ? levels.label : levels.blank;
  blank = blank < least_exponent && lane == 31 ? entering : blank;
  for (int step = 1; step < 32; step *= 2) {
    const int other = metal::simd_shuffle_down(blank, step);
    blank = blank < least_exponent && lane + step < 32 ? other : blank;
  }
  const int behind = metal::simd_shuffle_down(blank, 1);
  levels.blank = blank;
  if (is_zero(w.label)) {
    levels.label = lane == 31 ? entering : behind;
  }
  return levels;
}

// From one state's level to another's, for the steps into this lane's pair.
struct Arrivals {
  float label_before_to_blank;
  float label_before_to_label; // 0 where that is forbidden
  float blank_to_label;
};

METAL_FUNC Arrivals
arrivals(Levels levels, Has has, int entering_level, int jump, int lane) {
  int before = metal::simd_shuffle_up(levels.label, 1);
  before = lane == 0 ? entering_level : before;
  return Arrivals{
      has.blank ? level_ratio(before, levels.blank) : 0.0f,
      has.label ? level_ratio(before + jump, levels.label) : 0.0f,
      has.label ? level_ratio(levels.blank, levels.label) : 0.0f};
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
  float label_behind_to_label; // 0 where that is forbidden
};

METAL_FUNC Departures
departures(Levels levels, int entering_level, int jump, int lane) {
  int blank = metal::simd_shuffle_down(levels.blank, 1);
  int label = metal::simd_shuffle_down(levels.label, 1);
  blank = lane == 31 ? entering_level : blank;
  label = lane == 31 ? entering_level : label;
  return Departures{
      level_ratio(levels.label, levels.blank),
      level_ratio(blank, levels.label),
      level_ratio(label + jump, levels.label)};
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
