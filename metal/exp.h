// exp and log for the recursion and for softmax. exp of a score is a polynomial
// rather than the GPU's own function, so that every GPU computes the same bits.

#include "extended.h"

// ln(2) as the sum of two floats. The product of the first with an integer
// below 2^24 is exact inside fma.
constant constexpr float ln_2 = 0.693147182464599609375f;
constant constexpr float ln_2_rest = -1.9046543e-9f;
// 1 / ln(2), as the sum of two floats where one is not enough.
constant constexpr float log2_e = 1.44269502f;
constant constexpr float log2_e_rest = 1.9259630e-8f;

// Adding 1.5 * 2^23 to a float rounds it to the nearest integer k and leaves k
// in the low bits: round_offset_bits + k.
constant constexpr float round_offset = 12582912.0f;
constant constexpr int round_offset_bits = 0x4b400000;

// Half of ln(2): where exp_near_zero() is used.
constant constexpr float near_zero = 0.34657359f;

// (exp(r) - 1) / r for |r| <= near_zero.
METAL_FUNC float slope_of_exp(float r) {
  float p = 1.381432e-3f;
  p = metal::fma(p, r, 8.368851e-3f);
  p = metal::fma(p, r, 4.16684e-2f);
  p = metal::fma(p, r, 1.666652e-1f);
  p = metal::fma(p, r, 4.9999994e-1f);
  return metal::fma(p, r, 1.0f);
}

// exp(r): a minimax polynomial, within 0.64 ulp.
METAL_FUNC float exp_near_zero(float r) {
  return metal::fma(slope_of_exp(r), r, 1.0f);
}

// exp(r) - 1, of which exp_near_zero() would lose the digits.
METAL_FUNC float expm1_near_zero(float r) {
  return slope_of_exp(r) * r;
}

// The integer k nearest to x / ln(2).
struct NearestPower {
  float k;
  int bits; // round_offset_bits + k
};

METAL_FUNC NearestPower nearest_power(float x) {
  const float shifted = metal::fma(x, log2_e, round_offset);
  return NearestPower{shifted - round_offset, as_type<int>(shifted)};
}

// x - k * ln(2), where exp_near_zero() is used.
METAL_FUNC float rest_of_power(float x, float k) {
  return metal::fma(k, -ln_2_rest, metal::fma(k, -ln_2, x));
}

// exp(x) / 2^k, for unit_bits = round_offset_bits + k. Scores below -2.9e6,
// such as those that mask a class, give zero. x > 2.9e6 is not supported.
METAL_FUNC Extended extended_exp(float x, int unit_bits) {
  const float y = metal::max(x, -2.9e6f);
  const NearestPower power = nearest_power(y);
  const float m = exp_near_zero(rest_of_power(y, power.k));
  return Extended{m, x > -2.9e6f ? power.bits - unit_bits : zero_exponent};
}

// exp(x) as a float, which may underflow to 0 or overflow to infinity. clamp
// would replace NaN, so that NaN is passed on separately.
METAL_FUNC float float_exp(float x) {
  const float y = metal::clamp(x, -88.1f, 88.8f);
  const NearestPower power = nearest_power(y);
  const float r = metal::fma(power.k, -ln_2, y);
  const float p =
      exp_near_zero(r) * power_of_two(power.bits - round_offset_bits);
  return metal::isnan(x) ? x : p;
}

// exp(x) for x <= 0 by the GPU's exp2, for softmax. The relative error grows
// with |x|, as the term's weight in the sum shrinks.
METAL_FUNC float softmax_exp(float x) {
  return metal::fast::exp2(x * log2_e);
}

// The same for a sum of exponentials, whose error adds up over the frames of a
// loss. An M1's fast exp2 is 2 ulp low even for integers.
METAL_FUNC float softmax_sum_term(float x) {
  return metal::precise::exp2(x * log2_e);
}

// -log(a) for a > 0, rounded once: the exponent's part is the sum of two
// floats. The fast log may be off by 2^-21, the precise one by some ulp.
METAL_FUNC float minus_log(Extended a) {
  a = normalise(a);
  // A mantissa in [0.75, 1.5], so that for a near 1 the logarithms of mantissa
  // and exponent do not cancel.
  bool halved = a.m > 1.5f;
  float m = halved ? 0.5f * a.m : a.m;
  int exponent = halved ? a.e + 1 : a.e;
  float e = float(exponent);
  float high = e * ln_2;
  float low = metal::fma(e, ln_2, -high) + e * ln_2_rest +
      float(exponent - int(e)) * ln_2;
  return -(high + (low + metal::precise::log(m)));
}
