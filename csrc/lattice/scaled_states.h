// The states of one frame as doubles: label[i] and blank[i], the blank after
// it, are multiples of 2^exponent[i].
#pragma once

#include <bit>
#include <cstdint>

#include "lattice/frames.h"
#include "simd/blocks.h"
#include "simd/extended.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

constexpr int64_t block_down(int64_t i) {
  return i & -block_size<double>;
}

constexpr int64_t block_up(int64_t i) {
  return block_down(i + block_size<double> - 1);
}

inline Block<double> power_of_two(Block<int64_t> e) {
  return std::bit_cast<Block<double>>((e + 1023) << 52);
}

inline Block<int64_t> exponent_bits(Block<double> x) {
  return std::bit_cast<Block<int64_t>>(x) >> 52;
}

// blank[-1] is the blank before all labels. States that are still 0 have the
// exponent of the label from which they will be entered.
struct ScaledStates {
  double* blank;
  double* label;
  int64_t* exponent;

  // m * 2^exponent[i]
  template <typename Real>
  Extended<Real> at(double m, int64_t i) const {
    auto bits = std::bit_cast<int64_t>(m);
    if (bits == 0) {
      return zero<Real>();
    }
    constexpr int64_t fraction = (int64_t(1) << 52) - 1;
    constexpr int64_t one = int64_t(1023) << 52;
    return {
        Real(std::bit_cast<double>((bits & fraction) | one)),
        Int<Real>(exponent[i] + (bits >> 52) - 1023)};
  }
};

// The whole blocks around the band of frame t: [first_block, last_block).
inline int64_t first_block(const Frames<float>& frames, int t) {
  return block_down(frames.band(t).begin);
}

inline int64_t last_block(const Frames<float>& frames, int t) {
  return block_up(frames.band(t).end);
}

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
