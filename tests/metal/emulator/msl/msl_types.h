// Metal's scalar and vector types.

#pragma once

#include <cstddef>
#include <cstdint>

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;

typedef _Float16 half;

// The upper half of a float, rounded to nearest even.
struct bfloat {
  bfloat() = default;
  template <typename T>
  explicit constexpr bfloat(T value) {
    float wide = static_cast<float>(value);
    uint bits = __builtin_bit_cast(uint, wide);
    bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
    uint rounded = bits + 0x7fff + ((bits >> 16) & 1);
    bits_ = is_nan ? 0x7fc0 : static_cast<ushort>(rounded >> 16);
  }
  constexpr operator float() const {
    return __builtin_bit_cast(float, static_cast<uint>(bits_) << 16);
  }

 private:
  ushort bits_;
};

namespace metal {

template <typename T, int N>
struct vec;

template <typename T>
struct alignas(2 * sizeof(T)) vec<T, 2> {
  T x, y;

  vec() = default;
  explicit vec(T value) : x(value), y(value) {}
  vec(T x, T y) : x(x), y(y) {}
  T& operator[](int i) {
    return (&x)[i];
  }
};

// As large as four elements.
template <typename T>
struct alignas(4 * sizeof(T)) vec<T, 3> {
  T x, y, z;

  vec() = default;
  explicit vec(T value) : x(value), y(value), z(value) {}
  vec(T x, T y, T z) : x(x), y(y), z(z) {}
  T& operator[](int i) {
    return (&x)[i];
  }
};

template <typename T>
struct alignas(4 * sizeof(T)) vec<T, 4> {
  T x, y, z, w;

  vec() = default;
  explicit vec(T value) : x(value), y(value), z(value), w(value) {}
  vec(T x, T y, T z, T w) : x(x), y(y), z(z), w(w) {}
  T& operator[](int i) {
    return (&x)[i];
  }
};

#define MSL_VECTOR_OPERATOR(op)                                    \
  template <typename T, int N>                                     \
  inline vec<T, N>& operator op## = (vec<T, N> & a, vec<T, N> b) { \
    for (int i = 0; i < N; i++) {                                  \
      a[i] op## = b[i];                                            \
    }                                                              \
    return a;                                                      \
  }                                                                \
  template <typename T, int N>                                     \
  inline vec<T, N> operator op(vec<T, N> a, vec<T, N> b) {         \
    return a op## = b;                                             \
  }                                                                \
  template <typename T, int N>                                     \
  inline vec<T, N> operator op(vec<T, N> a, T b) {                 \
    return a op## = vec<T, N>(b);                                  \
  }                                                                \
  template <typename T, int N>                                     \
  inline vec<T, N> operator op(T a, vec<T, N> b) {                 \
    return vec<T, N>(a) op b;                                      \
  }

MSL_VECTOR_OPERATOR(+)
MSL_VECTOR_OPERATOR(-)
MSL_VECTOR_OPERATOR(*)
MSL_VECTOR_OPERATOR(/)

} // namespace metal

#define MSL_VECTOR_TYPES(T)      \
  typedef metal::vec<T, 2> T##2; \
  typedef metal::vec<T, 3> T##3; \
  typedef metal::vec<T, 4> T##4;

MSL_VECTOR_TYPES(float)
MSL_VECTOR_TYPES(half)
MSL_VECTOR_TYPES(int)
MSL_VECTOR_TYPES(uint)
MSL_VECTOR_TYPES(short)
MSL_VECTOR_TYPES(ushort)
MSL_VECTOR_TYPES(uchar)

// The same bits as another type.
template <typename To, typename From>
inline To as_type(From value) {
  return __builtin_bit_cast(To, value);
}
