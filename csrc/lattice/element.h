// The input types and their conversion to and from float or double. The two
// 16-bit formats are converted through their bits, in code that vectorises.
#pragma once

#include <bit>
#include <cstdint>

namespace mlx_ctc::cpu::MLX_CTC_ISA {

struct Half {
  uint16_t bits;
};

struct BFloat {
  uint16_t bits;
};

// Real is the type in which an input type is computed.
template <typename In>
struct Computing {
  using Real = float;
};

template <>
struct Computing<double> {
  using Real = double;
};

inline float number(float x) {
  return x;
}

inline double number(double x) {
  return x;
}

inline float number(BFloat x) {
  return std::bit_cast<float>(uint32_t(x.bits) << 16);
}

// The exponent and fraction bits of a half, moved to where a float has them,
// are the value times 2^-112, also for denormal halves. The exponent of
// infinity and NaN has to be filled with ones.
inline float number(Half x) {
  uint32_t magnitude = uint32_t(x.bits & 0x7fff) << 13;
  float value = std::bit_cast<float>(magnitude) * 0x1p112f;
  uint32_t bits = std::bit_cast<uint32_t>(value);
  bits |= magnitude >= (0x7c00u << 13) ? 0x7f800000u | magnitude : 0u;
  return std::bit_cast<float>(bits | (uint32_t(x.bits & 0x8000) << 16));
}

inline void assign(float& out, float x) {
  out = x;
}

inline void assign(double& out, double x) {
  out = x;
}

// Rounds to nearest, ties to even. NaN becomes a NaN with one fraction bit.
inline void assign(BFloat& out, float x) {
  uint32_t bits = std::bit_cast<uint32_t>(x);
  uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  out.bits = uint16_t(x == x ? rounded : 0x7fc0u);
}

// The same for a half. Numbers below 2^-14 are rounded by adding 0.5: a float
// there has the spacing of denormal halves, 2^-24.
inline void assign(Half& out, float x) {
  uint32_t bits = std::bit_cast<uint32_t>(x);
  uint32_t sign = (bits >> 16) & 0x8000u;
  uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t normal =
      (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  float shifted = std::bit_cast<float>(magnitude) + 0.5f;
  uint32_t denormal = std::bit_cast<uint32_t>(shifted) - (126u << 23);
  uint32_t half = magnitude < (113u << 23) ? denormal : normal;
  half = magnitude >= (143u << 23) ? 0x7c00u : half; // 65536 and above
  half = magnitude > (255u << 23) ? 0x7e00u : half;
  out.bits = uint16_t(sign | half);
}

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
