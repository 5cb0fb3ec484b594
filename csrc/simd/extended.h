// Extended-range numbers: m * 2^e, a mantissa and an integer exponent of its
// own.
//
// A path's probability falls far below the smallest float. Logarithms would
// hold it, but log-probabilities of size 10^4 leave only three digits after the
// point, and those pass through exp. Here products multiply m and add e, sums
// align to the greatest e, and no digit is lost however long the sequence.
#pragma once

#include <bit>
#include <cstdint>

#include "simd/blocks.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

// The layout of an IEEE number, and the integer as wide as it is.
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

// The exponent of zero. Exponents saturate here, so that a zero stays zero
// however often it is multiplied. Sums and factors above 1 move it up a little:
// all that lies below `nearly_zero` counts as zero.
constexpr int32_t zero_exponent = -(1 << 28);
constexpr int32_t nearly_zero = zero_exponent + (1 << 24);

template <typename Real>
struct Extended {
  Real m;
  Int<Real> e;
};

// 2^e for e up to the type's greatest exponent; 0 where 2^e would be denormal.
template <typename Real>
inline Real power_of_two(Int<Real> e) {
  using F = Ieee<Real>;
  return std::bit_cast<Real>(
      (larger<Int<Real>>(e, -F::bias) + F::bias) << F::mantissa_bits);
}

// 2^(e - greatest), for e up to greatest.
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

// One alignment for three terms is cheaper than two sums.
template <typename Real>
inline Extended<Real>
sum(Extended<Real> a, Extended<Real> b, Extended<Real> c) {
  Int<Real> e = larger(larger(a.e, b.e), c.e);
  return {
      a.m * alignment<Real>(a.e, e) + b.m * alignment<Real>(b.e, e) +
          c.m * alignment<Real>(c.e, e),
      e};
}

// The same value with its exponent saturated.
template <typename Real>
inline Extended<Real> saturated(Extended<Real> a) {
  return {a.m, larger<Int<Real>>(a.e, zero_exponent)};
}

// And with its mantissa in [1, 2). Between two normalisations a mantissa may
// grow; it only has to stay far from overflow.
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
