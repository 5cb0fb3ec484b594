// Rows of numbers in blocks: loops without remainders, and sums in an order
// that does not depend on the machine's vectors.
#pragma once

#include <cstdint>
#include <limits>

#include "cpu/extended.h"

namespace {

// A whole number of vectors in every instruction set, and a cache line of
// float.
constexpr int64_t lanes = 16;

constexpr int64_t round_down(int64_t i) {
  return i - i % lanes;
}

constexpr int64_t round_up(int64_t i) {
  return round_down(i + lanes - 1);
}

template <typename Real>
Real greatest_of_block(Real* block) {
  for (int64_t half = lanes / 2; half > 0; half /= 2) {
    for (int64_t j = 0; j < half; ++j) {
      block[j] = larger(block[j], block[j + half]);
    }
  }
  return block[0];
}

template <typename Real>
Real sum_of_block(Real* block) {
  for (int64_t half = lanes / 2; half > 0; half /= 2) {
    for (int64_t j = 0; j < half; ++j) {
      block[j] += block[j + half];
    }
  }
  return block[0];
}

// Of whole blocks.
template <typename Real>
Real sum(const Real* x, int64_t begin, int64_t end) {
  Real partial[lanes] = {};
  for (int64_t i = begin; i < end; i += lanes) {
    for (int64_t j = 0; j < lanes; ++j) {
      partial[j] += x[i + j];
    }
  }
  return sum_of_block(partial);
}

// Calls f(block, index of its first number, count) for all of x. The last block
// has fewer numbers than lanes and is filled up with -inf, which is no
// maximum and has no exponential.
template <typename Real, typename F>
inline void for_each_block(const Real* x, int64_t size, F f) {
  int64_t whole = round_down(size);
  for (int64_t c = 0; c < whole; c += lanes) {
    f(x + c, c, lanes);
  }
  if (whole < size) {
    Real rest[lanes];
    for (int64_t j = 0; j < lanes; ++j) {
      rest[j] = whole + j < size ? x[whole + j]
                                 : -std::numeric_limits<Real>::infinity();
    }
    f(rest, whole, size - whole);
  }
}

} // namespace
