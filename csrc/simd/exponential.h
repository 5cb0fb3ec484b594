// exp, as a number of extended range for the recursion and as a float or double
// for the softmax, without branches, so that compilers vectorise it.
#pragma once

#include <cmath>

#include "simd/blocks.h"
#include "simd/extended.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

constexpr double log2_e = 1.4426950408889634;
constexpr double ln_2 = 0.6931471805599453;

// 2^f for |f| <= 1/2: a minimax polynomial, relative error 2e-9 before
// rounding.
template <typename T> // float, or a block of them
inline T exp2_fraction(T f) {
  T p = f * 1.5353359e-4f + 1.3398875e-3f;
  p = p * f + 9.618437e-3f;
  p = p * f + 5.5503324e-2f;
  p = p * f + 2.4022648e-1f;
  p = p * f + 6.931472e-1f;
  return p * f + 1.0f;
}

// The same to the precision of a double: the series of exp up to the power 12,
// whose remainder is below 2e-16.
template <typename T> // double, or a block of them
inline T exact_exp2_fraction(T f) {
  T r = f * ln_2;
  T p = r * (1.0 / 479001600) + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  return p * r + 1.0;
}

inline double exp2_fraction(double f) {
  return exact_exp2_fraction(f);
}

// exp(x) / 2^log2_scale, at most 2^ceiling. x * log2(e) is computed in double:
// as a float of size 10^4 it would keep only ten bits of its fraction.
template <typename Real>
inline Extended<Real>
extended_exp(double x, double log2_scale, double ceiling) {
  // Adding and subtracting 1.5 * 2^52 rounds to the nearest integer.
  constexpr double rounding = 6755399441055744.0;
  double y = x * log2_e - log2_scale;
  y = larger<double>(y, zero_exponent);
  y = smaller<double>(y, ceiling);
  double n = (y + rounding) - rounding;
  return {exp2_fraction(Real(y - n)), Int<Real>(int32_t(n))};
}

// log2(exp(x)), rounded to an integer; for |x| below 2^20.
inline Block<float> whole_log2(Block<float> x) {
  // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
  const Block<float> rounding = filled(12582912.0f);
  return (x * float(log2_e) + rounding) - rounding;
}

// The limit of ScaledExp.
constexpr float greatest_log2_scale = 2048;

// exp(x) / 2^log2_scale to float precision, also for x far from 0; 0 if it is
// below 2^-126. log2_scale is an integer of size 2^11 at most. NaN stays NaN.
class ScaledExp {
 public:
  explicit ScaledExp(Block<float> log2_scale)
      : round_((12582912.0f + 127.0f) - log2_scale),
        least_((log2_scale - 127.0f) * float(ln_2)),
        most_((log2_scale + 128.0f) * float(ln_2)) {}

  [[gnu::always_inline]] Block<float> operator()(Block<float> x) const {
    x = least_ > x ? least_ : x;
    x = most_ < x ? most_ : x;
    // As in ordinary_exp(): the low bits are n + 127 - log2_scale.
    Block<float> shifted = x * float(log2_e) + round_;
    auto power = std::bit_cast<Block<float>>(
        std::bit_cast<Block<int32_t>>(shifted) << 23);
    Block<float> n = shifted - round_;
    // ln 2 in two parts: the first has 12 bits, so that n times it is exact.
    Block<float> r = x - n * 0x1.62ep-1f - n * 3.1946185e-5f;
    Block<float> p = r * 1.3843651e-3f + 8.374156e-3f;
    p = p * r + 4.1668e-2f;
    p = p * r + 1.6666431e-1f;
    p = p * r + 4.9999994e-1f;
    p = p * r + 1.0f;
    return (p * r + 1.0f) * power;
  }

 private:
  Block<float> round_;
  Block<float> least_;
  Block<float> most_;
};

// exp(x): 0 if it would be denormal, infinity if it would be above the greatest
// float. NaN stays NaN.
[[gnu::always_inline]] inline Block<float> ordinary_exp(Block<float> x) {
  // Adding 1.5 * 2^23 rounds to the nearest integer n and leaves n in the low
  // bits. With 127 added too, they are the exponent bits of 2^n.
  const Block<float> rounding = filled(12582912.0f + 127.0f);
  const Block<float> least = filled(-127.0f);
  const Block<float> most = filled(128.0f);
  Block<float> y = x * float(log2_e);
  y = least > y ? least : y;
  y = most < y ? most : y;
  Block<float> shifted = y + rounding;
  auto power =
      std::bit_cast<Block<float>>(std::bit_cast<Block<int32_t>>(shifted) << 23);
  return exp2_fraction(y - (shifted - rounding)) * power;
}

// exp(x) to the precision of a double: 0 if it would be denormal, infinity if
// it would be above the greatest double. NaN stays NaN.
[[gnu::always_inline]] inline Block<double> exact_exp(Block<double> x) {
  // As in ordinary_exp(Block<float>), with 1.5 * 2^52 and the exponent's bias
  // of a double.
  const Block<double> rounding = filled(6755399441055744.0 + 1023.0);
  const Block<double> least = filled(-1023.0);
  const Block<double> most = filled(1024.0);
  Block<double> y = x * log2_e;
  y = least > y ? least : y;
  y = most < y ? most : y;
  Block<double> shifted = y + rounding;
  auto power = std::bit_cast<Block<double>>(
      std::bit_cast<Block<int64_t>>(shifted) << 52);
  return exact_exp2_fraction(y - (shifted - rounding)) * power;
}

// exp(x) - 1 for |x| of at most ln 2: to float precision by the series
// up to the power 9, whose remainder is below 2^-26 of it.
inline float expm1_near_zero(float x) {
  float p = x * (1.0f / 362880) + 1.0f / 40320;
  p = p * x + 1.0f / 5040;
  p = p * x + 1.0f / 720;
  p = p * x + 1.0f / 120;
  p = p * x + 1.0f / 24;
  p = p * x + 1.0f / 6;
  p = p * x + 0.5f;
  return p * x * x + x;
}

inline double expm1_near_zero(double x) {
  return std::expm1(x);
}

inline Block<double> ordinary_exp(Block<double> x) {
  for (int64_t j = 0; j < block_size<double>; ++j) {
    x[j] = std::exp(x[j]);
  }
  return x;
}

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
