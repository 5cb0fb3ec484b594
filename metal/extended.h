// Extended-range numbers m * 2^e: a float mantissa and a 32-bit exponent.
//
// Path probabilities span thousands of orders of magnitude. In this form they
// keep the full precision of a float at any size; a logarithm of magnitude 1000
// would have only 14 bits left for its fraction. Sums and products are a few
// integer operations, without exp, log or branches.

struct Extended {
  float m; // positive; may drift away from 1 until normalise()
  int e;
};

// Any number with this exponent is zero, whatever its mantissa.
constant constexpr int zero_exponent = -(1 << 28);
// Below it a number is still zero: between two calls of normalise(), products
// and sums can raise a zero's exponent by less than 2^20.
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

METAL_FUNC Extended choose(bool first, Extended a, Extended b) {
  return Extended{first ? a.m : b.m, first ? a.e : b.e};
}

// 2^d, from its bits. d <= -127 gives 0, d = 128 infinity.
METAL_FUNC float power_of_two(int d) {
  return as_type<float>(uint(metal::max(d + 127, 0)) << 23);
}

// a's mantissa relative to the exponent `top`, for bias = 127 - top and
// top >= a.e. A difference of 127 or more gives 0: the error is 2^-127 of the
// greater number, even if its mantissa has drifted by some steps.
METAL_FUNC float mantissa_relative_to(Extended a, int bias) {
  return a.m * as_type<float>(uint(metal::max(a.e + bias, 0)) << 23);
}

METAL_FUNC Extended add(Extended a, Extended b) {
  int e = metal::max(a.e, b.e);
  int bias = 127 - e;
  return Extended{
      mantissa_relative_to(a, bias) + mantissa_relative_to(b, bias), e};
}

METAL_FUNC Extended add(Extended a, Extended b, Extended c) {
  int e = metal::max(metal::max(a.e, b.e), c.e);
  int bias = 127 - e;
  return Extended{
      mantissa_relative_to(a, bias) + mantissa_relative_to(b, bias) +
          mantissa_relative_to(c, bias),
      e};
}

// The exponent saturates, so that zero remains zero in any number of products.
METAL_FUNC Extended multiply(Extended a, Extended b) {
  return Extended{a.m * b.m, metal::max(a.e + b.e, zero_exponent)};
}

// The same number with a mantissa in [1, 2).
METAL_FUNC Extended normalise(Extended a) {
  uint bits = as_type<uint>(a.m);
  int e = a.e + int(bits >> 23) - 127;
  float m = as_type<float>((bits & 0x007fffffu) | 0x3f800000u);
  return Extended{
      m, e < least_exponent ? zero_exponent : metal::min(e, -zero_exponent)};
}

// Extended as 64 bits in memory.
METAL_FUNC uint64_t extended_to_bits(Extended a) {
  return (uint64_t(as_type<uint>(a.m)) << 32) | uint64_t(uint(a.e));
}

METAL_FUNC Extended extended_from_bits(uint64_t bits) {
  return Extended{as_type<float>(uint(bits >> 32)), int(uint(bits))};
}

// Exchange between lanes; Metal's simd functions take 32-bit values.

METAL_FUNC Extended shuffle_up(Extended a) {
  return Extended{
      metal::simd_shuffle_up(a.m, 1), metal::simd_shuffle_up(a.e, 1)};
}

METAL_FUNC Extended shuffle_down(Extended a, int lanes) {
  return Extended{
      metal::simd_shuffle_down(a.m, lanes),
      metal::simd_shuffle_down(a.e, lanes)};
}

METAL_FUNC Extended shuffle_xor(Extended a, int mask) {
  return Extended{
      metal::simd_shuffle_xor(a.m, mask), metal::simd_shuffle_xor(a.e, mask)};
}

METAL_FUNC Extended value_of_lane(Extended a, int lane) {
  return Extended{
      metal::simd_broadcast(a.m, lane), metal::simd_broadcast(a.e, lane)};
}
