// A number for a text, to name files and functions. Not a protection against
// texts that are made to have the same one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mlx_ctc::cuda {

// FNV-1a, 64 bits.
inline uint64_t hash(
    std::string_view text,
    uint64_t start = 14695981039346656037u) {
  uint64_t result = start;
  for (unsigned char c : text) {
    result = (result ^ c) * 1099511628211u;
  }
  return result;
}

inline std::string in_hexadecimal(uint64_t number) {
  std::string digits(16, '0');
  for (int i = 15; i >= 0; --i, number /= 16) {
    digits[i] = "0123456789abcdef"[number % 16];
  }
  return digits;
}

} // namespace mlx_ctc::cuda
