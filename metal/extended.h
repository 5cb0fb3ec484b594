// Extended-range numbers: m * 2^e, a float mantissa and an exponent of its own.
//
// The lattice's probabilities span thousands of orders of magnitude and keep
// full float precision this way, where a logarithm as large as the loss has
// few digits left for its fraction. Products and sums cost a few integer
// operations; no exp, no log, no branch.

struct Extended {
  float m; // positive; it may run away from 1 for some steps, then normalise()
  int e;
};

// Zero is any mantissa with this exponent.
constant constexpr int zero_exponent = -(1 << 28);
// What creeps up from zero between two calls of normalise() is zero still.
constant constexpr int least_exponent = zero_exponent + (1 << 20);

METAL_FUNC Extended extended_zero() {
  return Extended{1.0f, zero_exponent};
}

METAL_FUNC Extended extended_one() {
  return Extended{1.0f, 0};
}

METAL_FUNC bool is_zero(Extended a) {
  return a.e < least_exponent;
}

// 2^d, from its bits. Everything from 2^-127 down is 0, 2^128 is infinity.
METAL_FUNC float power_of_two(int d) {
  return as_type<float>(uint(metal::max(d + 127, 0)) << 23);
}

// The mantissa as it counts beside a greater exponent, to_top = 127 - that one.
// What is lost lies 2^-127 below: nothing, even when the mantissas differ by
// some steps' growth.
METAL_FUNC float aligned(Extended a, int to_top) {
  return a.m * as_type<float>(uint(metal::max(a.e + to_top, 0)) << 23);
}

METAL_FUNC Extended sum(Extended a, Extended b) {
  int e = metal::max(a.e, b.e);
  int to_top = 127 - e;
  return Extended{aligned(a, to_top) + aligned(b, to_top), e};
}

METAL_FUNC Extended sum(Extended a, Extended b, Extended c) {
  int e = metal::max(metal::max(a.e, b.e), c.e);
  int to_top = 127 - e;
  return Extended{
      aligned(a, to_top) + aligned(b, to_top) + aligned(c, to_top), e};
}

// Zero stays zero however often it is multiplied.
METAL_FUNC Extended product(Extended a, Extended b) {
  return Extended{a.m * b.m, metal::max(a.e + b.e, zero_exponent)};
}

// Moves the mantissa's exponent into e.
METAL_FUNC Extended normalise(Extended a) {
  uint bits = as_type<uint>(a.m);
  int e = a.e + int(bits >> 23) - 127;
  float m = as_type<float>((bits & 0x007fffffu) | 0x3f800000u);
  return Extended{
      m, e < least_exponent ? zero_exponent : metal::min(e, -zero_exponent)};
}

// The form in memory.
METAL_FUNC uint64_t pack(Extended a) {
  return (uint64_t(as_type<uint>(a.m)) << 32) | uint64_t(uint(a.e));
}

METAL_FUNC Extended unpack(uint64_t bits) {
  return Extended{as_type<float>(uint(bits >> 32)), int(uint(bits))};
}

// ln 2 in two parts. An integer below 2^24 times the first is exact in fma.
constant constexpr float ln_2 = 0.693147182464599609375f;
constant constexpr float ln_2_rest = -1.9046543e-9f;
constant constexpr float log2_e = 1.44269502f;

// exp(r) for |r| <= ln(2) / 2: minimax, within 0.62 units in the last place.
METAL_FUNC float exp_near_zero(float r) {
  float p = 1.381432e-3f;
  p = metal::fma(p, r, 8.368851e-3f);
  p = metal::fma(p, r, 4.16684e-2f);
  p = metal::fma(p, r, 1.666652e-1f);
  p = metal::fma(p, r, 4.9999994e-1f);
  p = metal::fma(p, r, 1.0f);
  return metal::fma(p, r, 1.0f);
}

// Adding 1.5 * 2^23 rounds to the nearest integer, which is then in the bits.
constant constexpr float rounding = 12582912.0f;
constant constexpr int rounding_bits = 0x4b400000;

// exp(x) as an extended-range number over 2^k, `unit` being rounding_bits + k.
// Zero below exp(-2.9e6), which takes in every value that masks a class; above
// exp(2.9e6) there is no answer.
METAL_FUNC Extended extended_exp(float x, int unit) {
  float y = metal::max(x, -2.9e6f);
  float shifted = metal::fma(y, log2_e, rounding);
  float k = shifted - rounding;
  float r = metal::fma(k, -ln_2, y);
  r = metal::fma(k, -ln_2_rest, r);
  int e = as_type<int>(shifted) - unit;
  return Extended{exp_near_zero(r), x > -2.9e6f ? e : zero_exponent};
}

// exp(x) as a plain float; it underflows to 0 and overflows to infinity. NaN
// stays NaN, which clamp would lose.
METAL_FUNC float plain_exp(float x) {
  float y = metal::clamp(x, -88.1f, 88.8f);
  float shifted = metal::fma(y, log2_e, rounding);
  float k = shifted - rounding;
  float r = metal::fma(k, -ln_2, y);
  float p =
      exp_near_zero(r) * power_of_two(as_type<int>(shifted) - rounding_bits);
  return metal::isnan(x) ? x : p;
}

// exp(x) of x <= 0, for sums and differences near 1: the smaller it is, the
// fewer of its digits are right.
METAL_FUNC float share(float x) {
  return metal::exp2(x * log2_e);
}

// -log(a), rounded once: the exponent's part is formed in two floats.
METAL_FUNC float minus_log(Extended a) {
  a = normalise(a);
  // Near 1 the mantissa's logarithm and the exponent's must not cancel.
  bool upper = a.m > 1.5f;
  float m = upper ? 0.5f * a.m : a.m;
  int whole = upper ? a.e + 1 : a.e;
  float e = float(whole);
  float product = e * ln_2;
  float rest = metal::fma(e, ln_2, -product) + e * ln_2_rest +
      float(whole - int(e)) * ln_2;
  return -(product + (rest + metal::log(m)));
}
