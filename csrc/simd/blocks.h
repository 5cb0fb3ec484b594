// Blocks of numbers as wide as the machine's vectors: the vector types of GCC
// and Clang, whose arithmetic and comparisons act on all elements.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace mlx_ctc::cpu::MLX_CTC_ISA {

#if defined(__AVX512F__)
constexpr int block_bytes = 64;
#elif defined(__AVX__)
constexpr int block_bytes = 32;
#else
constexpr int block_bytes = 16;
#endif

template <typename T>
struct BlockOf;

template <>
struct BlockOf<float> {
  typedef float Type __attribute__((vector_size(block_bytes)));
};

template <>
struct BlockOf<int32_t> {
  typedef int32_t Type __attribute__((vector_size(block_bytes)));
};

template <>
struct BlockOf<int64_t> {
  typedef int64_t Type __attribute__((vector_size(block_bytes)));
};

template <>
struct BlockOf<double> {
  typedef double Type __attribute__((vector_size(block_bytes)));
};

template <typename T>
using Block = typename BlockOf<T>::Type;

template <typename T>
constexpr int64_t block_size = block_bytes / sizeof(T);

template <typename T>
inline Block<T> filled(T value) {
  return Block<T>{} + value;
}

template <typename T>
inline Block<T> load_block(const T* x) {
  Block<T> block;
  std::memcpy(&block, x, sizeof(block));
  return block;
}

// Half a block of floats as a block of doubles. Intrinsics, because GCC
// converts it in two parts, and on arm64 through a general register.
inline Block<double> load_widened(const float* x) {
#if defined(__AVX512F__)
  return std::bit_cast<Block<double>>(_mm512_cvtps_pd(_mm256_loadu_ps(x)));
#elif defined(__AVX__)
  return std::bit_cast<Block<double>>(_mm256_cvtps_pd(_mm_loadu_ps(x)));
#elif defined(__aarch64__)
  return std::bit_cast<Block<double>>(vcvt_f64_f32(vld1_f32(x)));
#else
  typedef float Half __attribute__((vector_size(block_bytes / 2)));
  Half half;
  std::memcpy(&half, x, sizeof(half));
  return __builtin_convertvector(half, Block<double>);
#endif
}

inline void store_narrowed(float* x, Block<double> block) {
  typedef float Half __attribute__((vector_size(block_bytes / 2)));
  Half half = __builtin_convertvector(block, Half);
  std::memcpy(x, &half, sizeof(half));
}

// The elements of `block` moved up by `distance`; the first ones come from the
// end of `before`.
template <int distance, typename T> // T is a block
inline T shifted(T before, T block) {
  constexpr int size = sizeof(T) / sizeof(block[0]);
  return [&]<int... j>(std::integer_sequence<int, j...>) {
#if defined(__clang__)
    return __builtin_shufflevector(before, block, size - distance + j...);
#else
    using Indices = decltype(before < block);
    return __builtin_shuffle(before, block, Indices{size - distance + j...});
#endif
  }(std::make_integer_sequence<int, size>());
}

// What a comparison of blocks gave, as a bit for each element, the first one's
// the lowest.
template <typename T>
inline uint32_t bits_of(const T& mask) {
#if defined(__AVX512F__)
  if constexpr (sizeof(mask[0]) == 4) {
    return _mm512_movepi32_mask(std::bit_cast<__m512i>(mask));
  } else {
    return _mm512_movepi64_mask(std::bit_cast<__m512i>(mask));
  }
#elif defined(__AVX__)
  if constexpr (sizeof(mask[0]) == 4) {
    return _mm256_movemask_ps(std::bit_cast<__m256>(mask));
  } else {
    return _mm256_movemask_pd(std::bit_cast<__m256d>(mask));
  }
#elif defined(__SSE2__)
  if constexpr (sizeof(mask[0]) == 4) {
    return _mm_movemask_ps(std::bit_cast<__m128>(mask));
  } else {
    return _mm_movemask_pd(std::bit_cast<__m128d>(mask));
  }
#else
  uint32_t bits = 0;
  for (size_t j = 0; j < sizeof(mask) / sizeof(mask[0]); ++j) {
    bits |= uint32_t(mask[j] != 0) << j;
  }
  return bits;
#endif
}

// Whether a comparison of blocks is true for an element.
template <typename T> // T is what the comparison gave
inline bool any(const T& mask) {
  return bits_of(mask) != 0;
}

// One level of transpose(): exchanges the off-diagonal quarters of the matrix,
// then those of the quarters, and so on.
template <int half, typename T> // T is a block
[[gnu::always_inline]] inline void swap_halves(T* x) {
  constexpr int size = sizeof(T) / sizeof(x[0][0]);
  if constexpr (half > 0) {
    [&]<int... j>(std::integer_sequence<int, j...>)
        __attribute__((always_inline)) {
#pragma GCC unroll 16
          for (int i = 0; i < size; ++i) {
            if ((i & half) == 0) {
              T a = x[i], b = x[i + half];
#if defined(__clang__)
              x[i] = __builtin_shufflevector(
                  a, b, (j & half ? size + j - half : j)...);
              x[i + half] = __builtin_shufflevector(
                  a, b, (j & half ? size + j : j + half)...);
#else
              using Indices = decltype(a < b);
              x[i] = __builtin_shuffle(
                  a, b, Indices{(j & half ? size + j - half : j)...});
              x[i + half] = __builtin_shuffle(
                  a, b, Indices{(j & half ? size + j : j + half)...});
#endif
            }
          }
        }(std::make_integer_sequence<int, size>());
    swap_halves<half / 2>(x);
  }
}

// Transposes a square matrix whose rows are as many blocks as a block has
// elements.
template <typename T>
[[gnu::always_inline]] inline void transpose(T* x) {
  swap_halves<sizeof(T) / sizeof(x[0][0]) / 2>(x);
}

// Copies `count` elements, less than a block, in moves of 8, 4, 2 and 1.
template <typename T>
inline void copy_part(void* to, const void* from, int64_t count) {
  auto* out = static_cast<char*>(to);
  auto* in = static_cast<const char*>(from);
  auto move = [&](auto size) {
    if constexpr (size() < block_size<T>) {
      if (count & size()) {
        std::memcpy(out, in, size() * sizeof(T));
        out += size() * sizeof(T);
        in += size() * sizeof(T);
      }
    }
  };
  move(std::integral_constant<int, 8>());
  move(std::integral_constant<int, 4>());
  move(std::integral_constant<int, 2>());
  move(std::integral_constant<int, 1>());
}

// Of two numbers, or of the elements of two blocks; b where a is NaN.
template <typename T>
constexpr T larger(T a, T b) {
  return a > b ? a : b;
}

template <typename T>
constexpr T smaller(T a, T b) {
  return a < b ? a : b;
}

// In element 0, all elements of a block combined by f: those of its halves, of
// the quarters of the result, and so on.
template <int half, typename T, typename F> // T is a block
inline T folded(T block, F f) {
  if constexpr (half > 0) {
    return folded<half / 2>(f(block, shifted<half>(block, block)), f);
  } else {
    return block;
  }
}

// The greatest element of a block.
template <typename T>
inline T greatest(Block<T> block) {
  return folded<block_size<T> / 2>(block, larger<Block<T>>)[0];
}

// The least element of a block.
template <typename T>
inline T least(Block<T> block) {
  return folded<block_size<T> / 2>(block, smaller<Block<T>>)[0];
}

// The sum of a block's elements, added in type Sum.
template <typename Sum, typename T>
inline Sum total(const T& block) {
  auto add = [](auto a, auto b) { return a + b; };
  if constexpr (sizeof(Sum) == sizeof(block[0])) {
    return folded<block_size<Sum> / 2>(block, add)[0];
  } else {
    float x[block_size<float>];
    std::memcpy(x, &block, sizeof(x));
    auto halves = load_widened(x) + load_widened(x + block_size<double>);
    return folded<block_size<double> / 2>(halves, add)[0];
  }
}

// The sum of x[begin] to x[end - 1], whole blocks.
template <typename T>
inline T sum(const T* x, int64_t begin, int64_t end) {
  Block<T> partial = {};
  for (int64_t i = begin; i < end; i += block_size<T>) {
    partial += load_block(x + i);
  }
  return total<T>(partial);
}

// A block of `count` elements and then -inf, which changes neither a maximum
// nor a sum of exponentials.
template <typename T>
inline Block<T> load_some(const T* x, int64_t count) {
  if (count == block_size<T>) {
    return load_block(x);
  }
  Block<T> block = filled(-std::numeric_limits<T>::infinity());
#if defined(__AVX512F__)
  uint32_t wanted = (1u << (count & 31)) - 1; // a bit for each element
  if constexpr (sizeof(T) == 4) {
    return _mm512_mask_loadu_ps(block, wanted, x);
  } else {
    return _mm512_mask_loadu_pd(block, wanted, x);
  }
#else
  copy_part<T>(&block, x, count);
  return block;
#endif
}

// Calls f(block, index of its first element, count) for all blocks of x. In the
// last one count may be less than a block.
template <typename T, typename F>
inline void for_each_block(const T* x, int64_t size, F f) {
  int64_t whole = size - size % block_size<T>;
  for (int64_t c = 0; c < whole; c += block_size<T>) {
    f(load_block(x + c), c, block_size<T>);
  }
  if (whole < size) {
    f(load_some(x + whole, size - whole), whole, size - whole);
  }
}

// The greatest of x (size), or -inf. Four maxima side by side, so that no
// comparison waits for the one before.
template <typename T>
inline T greatest(const T* x, int64_t size) {
  constexpr int64_t stride = 4 * block_size<T>;
  Block<T> of_lane[4];
  for (auto& block : of_lane) {
    block = filled(-std::numeric_limits<T>::infinity());
  }
  int64_t whole = size - size % stride;
  for (int64_t c = 0; c < whole; c += stride) {
    for (int j = 0; j < 4; ++j) {
      of_lane[j] = larger(load_block(x + c + j * block_size<T>), of_lane[j]);
    }
  }
  for_each_block(x + whole, size - whole, [&](auto block, int64_t, int64_t) {
    of_lane[0] = larger(block, of_lane[0]);
  });
  of_lane[0] = larger(of_lane[1], of_lane[0]);
  of_lane[2] = larger(of_lane[3], of_lane[2]);
  of_lane[0] = larger(of_lane[2], of_lane[0]);
  return greatest<T>(of_lane[0]);
}

template <typename T>
inline void store_block(T* x, Block<T> block, int64_t count) {
  if (count == block_size<T>) {
    std::memcpy(x, &block, sizeof(block));
  } else {
    copy_part<T>(x, &block, count);
  }
}

// Stores past the caches to an address that is a multiple of a block's size.
template <typename T>
inline void stream_block(T* x, Block<T> block) {
#if defined(__clang__)
  __builtin_nontemporal_store(block, reinterpret_cast<Block<T>*>(x));
#elif defined(__AVX512F__)
  _mm512_stream_si512(
      reinterpret_cast<__m512i*>(x), std::bit_cast<__m512i>(block));
#elif defined(__AVX__)
  _mm256_stream_si256(
      reinterpret_cast<__m256i*>(x), std::bit_cast<__m256i>(block));
#elif defined(__SSE2__)
  _mm_stream_si128(
      reinterpret_cast<__m128i*>(x), std::bit_cast<__m128i>(block));
#else
  std::memcpy(x, &block, sizeof(block));
#endif
}

inline void finish_streaming() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// Copies a row to memory that will not be read soon, past the caches, with
// aligned stores of whole blocks. Call finish_streaming() before another thread
// may read it.
template <typename T>
inline void stream_row(T* out, const T* x, int64_t size) {
  int64_t c = 0;
  auto address = reinterpret_cast<uintptr_t>(out);
  int64_t head = (-address % block_bytes) / sizeof(T);
  for (; c < head && c < size; ++c) {
    out[c] = x[c];
  }
  for (; c + block_size<T> <= size; c += block_size<T>) {
    stream_block(out + c, load_block(x + c));
  }
  for (; c < size; ++c) {
    out[c] = x[c];
  }
}

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
