// Extended-range numbers with a mantissa of two floats: 48 bits, for GPUs that
// have no fast doubles, or none.
//
// Sums and products are error-free transformations (Dekker 1971): the rounding
// error of a sum of floats is a float, which a few more sums compute, and that
// of a product takes one fma. They need a compiler that keeps the order of the
// operations. MLX compiles Metal without fast math; CUDA's compiler may fuse a
// product with a sum, which here changes an error by 2^-48 at most.

#include "exp.h"

// high + low, where low is the rounding error of high.
struct TwoFloats {
  float high;
  float low;
};

METAL_FUNC TwoFloats two_sum(float a, float b) {
  const float sum = a + b;
  const float b_in_sum = sum - a;
  return TwoFloats{sum, (a - (sum - b_in_sum)) + (b - b_in_sum)};
}

// The same for |a| >= |b|.
METAL_FUNC TwoFloats two_sum_of_ordered(float a, float b) {
  const float sum = a + b;
  return TwoFloats{sum, b - (sum - a)};
}

METAL_FUNC TwoFloats add(TwoFloats a, TwoFloats b) {
  const TwoFloats sum = two_sum(a.high, b.high);
  return two_sum_of_ordered(sum.high, sum.low + (a.low + b.low));
}

METAL_FUNC TwoFloats multiply(TwoFloats a, TwoFloats b) {
  const float product = a.high * b.high;
  float rest = metal::fma(a.high, b.high, -product);
  rest = metal::fma(a.high, b.low, rest);
  rest = metal::fma(a.low, b.high, rest);
  return two_sum_of_ordered(product, rest);
}

METAL_FUNC TwoFloats quotient(TwoFloats a, TwoFloats b) {
  const float first = a.high / b.high;
  float rest = metal::fma(-first, b.high, a.high);
  rest = metal::fma(-first, b.low, rest + a.low);
  return two_sum_of_ordered(first, rest / b.high);
}

// A power of two times the floats.
METAL_FUNC TwoFloats scaled(TwoFloats a, float factor) {
  return TwoFloats{a.high * factor, a.low * factor};
}

// m * 2^e. As in extended.h, zero is any mantissa with a very low exponent.
struct Wide {
  TwoFloats m;
  int e;
};

METAL_FUNC Wide wide(Extended a) {
  return Wide{TwoFloats{a.m, 0.0f}, a.e};
}

METAL_FUNC Wide choose(bool first, Wide a, Wide b) {
  return Wide{
      TwoFloats{first ? a.m.high : b.m.high, first ? a.m.low : b.m.low},
      first ? a.e : b.e};
}

METAL_FUNC Wide normalise(Wide a) {
  const Extended high = normalise(Extended{a.m.high, a.e});
  const int shift = int(as_type<uint>(a.m.high) >> 23) - 127;
  return Wide{TwoFloats{high.m, a.m.low * power_of_two(-shift)}, high.e};
}

METAL_FUNC Wide add(Wide a, Wide b) {
  const int e = metal::max(a.e, b.e);
  return Wide{
      add(scaled(a.m, power_of_two(a.e - e)),
          scaled(b.m, power_of_two(b.e - e))),
      e};
}

METAL_FUNC Wide add(Wide a, Wide b, Wide c) {
  return add(add(a, b), c);
}

METAL_FUNC Wide multiply(Wide a, Wide b) {
  return Wide{multiply(a.m, b.m), metal::max(a.e + b.e, zero_exponent)};
}

METAL_FUNC Wide quotient(Wide a, Wide b) {
  return Wide{quotient(a.m, b.m), metal::max(a.e - b.e, zero_exponent)};
}

METAL_FUNC float minus_log(Wide a) {
  return minus_log(Extended{a.m.high, a.e}) - a.m.low / a.m.high;
}

// exp(r) for |r| <= ln(2) / 2: a Taylor series for r / 8, of which the terms
// from r^4 on need one float only, and three squares.
METAL_FUNC TwoFloats exp_near_zero(TwoFloats r) {
  const TwoFloats x = scaled(r, 0.125f);
  float terms = metal::fma(x.high, 1.0f / 5040.0f, 1.0f / 720.0f);
  terms = metal::fma(terms, x.high, 1.0f / 120.0f);
  terms = metal::fma(terms, x.high, 1.0f / 24.0f);
  // 1/6 is the sum of two floats.
  TwoFloats sum = two_sum_of_ordered(
      0.16666667163372f, metal::fma(terms, x.high, -4.9670537e-9f));
  sum = add(TwoFloats{0.5f, 0.0f}, multiply(sum, x));
  sum = add(TwoFloats{1.0f, 0.0f}, multiply(sum, x));
  sum = add(TwoFloats{1.0f, 0.0f}, multiply(sum, x));
  sum = multiply(sum, sum);
  sum = multiply(sum, sum);
  return multiply(sum, sum);
}

// exp(x) within 1e-13, for the scores of extended_exp().
METAL_FUNC Wide wide_exp(float x) {
  const float y = metal::max(x, -2.9e6f);
  const float shifted = metal::fma(y, log2_e, round_offset);
  const float k = shifted - round_offset;
  // The difference of y and k * ln_2 is exact.
  const TwoFloats r = two_sum(metal::fma(k, -ln_2, y), k * -ln_2_rest);
  const int e = as_type<int>(shifted) - round_offset_bits;
  return Wide{exp_near_zero(r), x > -2.9e6f ? e : zero_exponent};
}

// exp(a - b) for a <= b, within 1 ulp of a float whatever a - b is.
METAL_FUNC Extended exp_of_difference(float a, float b) {
  const TwoFloats difference = two_sum(a, -b);
  const Extended p = extended_exp(difference.high, round_offset_bits);
  const float m = metal::fma(p.m, difference.low, p.m);
  return Extended{is_zero(p) ? 1.0f : m, p.e};
}

// Exchange between lanes ------------------------------------------------------

METAL_FUNC Wide shuffle_up(Wide a) {
  return Wide{
      TwoFloats{
          metal::simd_shuffle_up(a.m.high, 1),
          metal::simd_shuffle_up(a.m.low, 1)},
      metal::simd_shuffle_up(a.e, 1)};
}

METAL_FUNC TwoFloats shuffle_xor(TwoFloats a, int mask) {
  return TwoFloats{
      metal::simd_shuffle_xor(a.high, mask),
      metal::simd_shuffle_xor(a.low, mask)};
}

METAL_FUNC Wide shuffle_xor(Wide a, int mask) {
  return Wide{shuffle_xor(a.m, mask), metal::simd_shuffle_xor(a.e, mask)};
}

METAL_FUNC Wide value_of_lane(Wide a, int lane) {
  return Wide{
      TwoFloats{
          metal::simd_broadcast(a.m.high, lane),
          metal::simd_broadcast(a.m.low, lane)},
      metal::simd_broadcast(a.e, lane)};
}

// The sum over all lanes, in every lane.
METAL_FUNC TwoFloats sum_of_lanes(TwoFloats a) {
  for (int step = 16; step > 0; step /= 2) {
    a = add(a, shuffle_xor(a, step));
  }
  return a;
}

METAL_FUNC Wide sum_of_lanes(Wide a) {
  for (int step = 16; step > 0; step /= 2) {
    a = add(a, shuffle_xor(a, step));
  }
  return normalise(a);
}
