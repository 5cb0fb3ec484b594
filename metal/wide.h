// Extended-range numbers with a mantissa of two floats.

#include "exp.h"
#include "two_floats.h"

// m * 2^e. As in extended.h, zero is any mantissa with a very low exponent.
struct Wide {
  TwoFloats m;
  int e;
};

METAL_FUNC Wide wide(Extended a) {
  return Wide{TwoFloats{a.m, 0.0f}, a.e};
}

METAL_FUNC Wide choose(bool first, Wide a, Wide b) {
  return Wide{choose(first, a.m, b.m), first ? a.e : b.e};
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

// A mantissa as 64 bits in memory.
METAL_FUNC uint64_t mantissa_to_bits(TwoFloats m) {
  return (uint64_t(as_type<uint>(m.high)) << 32) |
      uint64_t(as_type<uint>(m.low));
}

METAL_FUNC Wide wide_from_bits(uint64_t mantissa, uint64_t exponent) {
  return Wide{
      TwoFloats{
          as_type<float>(uint(mantissa >> 32)), as_type<float>(uint(mantissa))},
      int(uint(exponent))};
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
  const NearestPower power = nearest_power(y);
  const float k = power.k;
  // The difference of y and k * ln_2 is exact.
  const TwoFloats r = two_sum(metal::fma(k, -ln_2, y), k * -ln_2_rest);
  const int e = power.bits - round_offset_bits;
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
METAL_FUNC Wide sum_of_lanes(Wide a) {
#pragma unroll 1
  for (int step = 16; step > 0; step /= 2) {
    a = add(a, shuffle_xor(a, step));
  }
  return normalise(a);
}

// The product over all lanes, in every lane.
METAL_FUNC Wide product_of_lanes(Wide a) {
#pragma unroll 1
  for (int step = 16; step > 0; step /= 2) {
    a = normalise(multiply(a, shuffle_xor(a, step)));
  }
  return a;
}
