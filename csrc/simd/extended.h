// Numbers of extended range: m * 2^e, with a mantissa m and an integer exponent
// e of its own.
//
// The probability of a path is far below the smallest float. Its logarithm is
// not, but as a float of size 10^4 it has only three digits after the point,
// and exp turns their error into a relative error of 10^-3. Here a product
// multiplies m and adds e, a sum aligns its terms to the greatest e, and the
// precision is that of m at any length.
#pragma once

#include <bit>
#include <cstdint>

#include "simd/blocks.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

// The layout of an IEEE number, and the integer of the same width.
template <typename Real>
struct Ieee;

template <>
struct Ieee<float> {
  using Int = int32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr Int bias = 127;
};

template <>
struct Ieee<double> {
  using Int = int64_t;
  static constexpr int mantissa_bits = 52;
  static constexpr Int bias = 1023;
};

template <typename Real>
using Int = typename Ieee<Real>::Int;

// The exponent of the number 0. No exponent is less: they saturate there, so
// that 0 times anything remains 0. Sums and factors above 1 may raise the
// exponent of a 0 a little. So a number with one below `nearly_zero` counts as
// 0.
constexpr int32_t zero_exponent = -(1 << 28);
constexpr int32_t nearly_zero = zero_exponent + (1 << 24);

template <typename Real>
struct Extended {
  Real m;
  Int<Real> e;
};

// 2^e for e up to the type's greatest exponent; 0 if 2^e would be denormal.
template <typename Real>
inline Real power_of_two(Int<Real> e) {
  using F = Ieee<Real>;
  return std::bit_cast<Real>(
      (larger<Int<Real>>(e, -F::bias) + F::bias) << F::mantissa_bits);
}

// 2^(e - greatest), for e <= greatest; 0 if it would be denormal.
template <typename Real>
inline Real alignment(Int<Real> e, Int<Real> greatest) {
  using F = Ieee<Real>;
  return std::bit_cast<Real>(
      larger<Int<Real>>(e - (greatest - F::bias), 0) << F::mantissa_bits);
}

template <typename Real>
inline Extended<Real> zero() {
  return {Real(1), zero_exponent};
}

template <typename Real>
inline Extended<Real> operator*(Extended<Real> a, Extended<Real> b) {
  return {a.m * b.m, a.e + b.e};
}

template <typename Real>
inline Extended<Real> operator+(Extended<Real> a, Extended<Real> b) {
  Int<Real> e = larger(a.e, b.e);
  return {a.m * alignment<Real>(a.e, e) + b.m * alignment<Real>(b.e, e), e};
}

// Three terms at once need one alignment where two sums need two.
template <typename Real>
inline Extended<Real>
sum(Extended<Real> a, Extended<Real> b, Extended<Real> c) {
  Int<Real> e = larger(larger(a.e, b.e), c.e);
  return {
      a.m * alignment<Real>(a.e, e) + b.m * alignment<Real>(b.e, e) +
          c.m * alignment<Real>(c.e, e),
      e};
}

// a with its exponent saturated at zero_exponent.
template <typename Real>
inline Extended<Real> saturated(Extended<Real> a) {
  return {a.m, larger<Int<Real>>(a.e, zero_exponent)};
}

// a with its mantissa in [1, 2) and its exponent saturated. Not every sum needs
// it: a mantissa only has to stay far from overflow.
template <typename Real>
inline Extended<Real> normalised(Extended<Real> a) {
  using F = Ieee<Real>;
  constexpr Int<Real> one = F::bias << F::mantissa_bits;
  constexpr Int<Real> fraction = (Int<Real>(1) << F::mantissa_bits) - 1;
  Int<Real> bits = std::bit_cast<Int<Real>>(a.m);
  Int<Real> e = a.e + (bits >> F::mantissa_bits) - F::bias;
  return saturated<Real>({std::bit_cast<Real>((bits & fraction) | one), e});
}

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
