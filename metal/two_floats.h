// Numbers of two floats: 48 bits, for GPUs that have no fast doubles, or none.
//
// Sums and products are error-free transformations (Dekker 1971): the rounding
// error of a sum of floats is a float, which a few more sums compute, and that
// of a product takes one fma. They need a compiler that keeps the order of the
// operations. MLX compiles Metal without fast math; CUDA's compiler may fuse a
// product with a sum, which here changes an error by 2^-48 at most.

// high + low. Here low is the rounding error of high; in the sums of
// frame_sums.h it is that of many sums, and may be greater.
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

METAL_FUNC TwoFloats choose(bool first, TwoFloats a, TwoFloats b) {
  return TwoFloats{first ? a.high : b.high, first ? a.low : b.low};
}

// Exchange between lanes ------------------------------------------------------

METAL_FUNC TwoFloats shuffle_xor(TwoFloats a, int mask) {
  return TwoFloats{
      metal::simd_shuffle_xor(a.high, mask),
      metal::simd_shuffle_xor(a.low, mask)};
}

// The sum over all lanes, in every lane.
METAL_FUNC TwoFloats sum_of_lanes(TwoFloats a) {
  for (int step = 16; step > 0; step /= 2) {
    a = add(a, shuffle_xor(a, step));
  }
  return a;
}
