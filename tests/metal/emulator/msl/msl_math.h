// Metal's mathematics, at the host's precision.

#pragma once

#include "../kernel_interface.h"
#include "msl_types.h"

namespace metal {

template <typename T>
concept FloatingPoint = __is_same(T, float) || __is_same(T, half);

template <typename T>
concept Integer =
    __is_same(T, int) || __is_same(T, uint) || __is_same(T, short) ||
    __is_same(T, ushort) || __is_same(T, char) || __is_same(T, signed char) ||
    __is_same(T, uchar) || __is_same(T, long) || __is_same(T, ulong);

template <typename T>
concept Number = FloatingPoint<T> || Integer<T>;

// Functions of one float; also in metal::fast and metal::precise.
#define MSL_UNARY(name, builtin)       \
  template <FloatingPoint T>           \
  inline T name(T x) {                 \
    return static_cast<T>(builtin(x)); \
  }                                    \
  namespace fast {                     \
  using metal::name;                   \
  }                                    \
  namespace precise {                  \
  using metal::name;                   \
  }

MSL_UNARY(fabs, __builtin_fabsf)
MSL_UNARY(floor, __builtin_floorf)
MSL_UNARY(ceil, __builtin_ceilf)
MSL_UNARY(round, __builtin_roundf)
MSL_UNARY(rint, __builtin_rintf)
MSL_UNARY(trunc, __builtin_truncf)

// Functions that a kernel has to call by metal::fast or metal::precise, because
// MLX decides which of them metal:: means. `error` is that of the fast one.
#define MSL_FAST_AND_PRECISE(name, builtin, error)         \
  namespace fast {                                         \
  template <FloatingPoint T>                               \
  inline T name(T x) {                                     \
    float wide = static_cast<float>(x);                    \
    return static_cast<T>(error(wide, builtin(wide)));     \
  }                                                        \
  }                                                        \
  namespace precise {                                      \
  template <FloatingPoint T>                               \
  inline T name(T x) {                                     \
    return static_cast<T>(builtin(static_cast<float>(x))); \
  }                                                        \
  }

// As M1's fast exp2.
inline float two_ulp_low(float, float y) {
  bool has_room = y >= 0x1p-125f && y <= 0x1.fffffep127f;
  return has_room ? as_type<float>(as_type<uint>(y) - 2) : y;
}

// What Metal allows a fast logarithm for x in [0.5, 2]. The sign is that of the
// last bit of x.
inline float off_by_2_to_minus_21(float x, float y) {
  float error = as_type<uint>(x) & 1 ? 0x1p-21f : -0x1p-21f;
  return x >= 0.5f && x <= 2.0f ? y + error : y;
}

inline float exact(float, float y) {
  return y;
}

MSL_FAST_AND_PRECISE(exp, __builtin_expf, two_ulp_low)
MSL_FAST_AND_PRECISE(exp2, __builtin_exp2f, two_ulp_low)
MSL_FAST_AND_PRECISE(exp10, __builtin_exp10f, two_ulp_low)
MSL_FAST_AND_PRECISE(log, __builtin_logf, off_by_2_to_minus_21)
MSL_FAST_AND_PRECISE(log2, __builtin_log2f, off_by_2_to_minus_21)
MSL_FAST_AND_PRECISE(log10, __builtin_log10f, off_by_2_to_minus_21)
MSL_FAST_AND_PRECISE(sqrt, __builtin_sqrtf, exact)
MSL_FAST_AND_PRECISE(rsqrt, 1.0f / __builtin_sqrtf, exact)
MSL_FAST_AND_PRECISE(sin, __builtin_sinf, exact)
MSL_FAST_AND_PRECISE(cos, __builtin_cosf, exact)
MSL_FAST_AND_PRECISE(tanh, __builtin_tanhf, exact)

// Functions of two floats.
#define MSL_BINARY(name, builtin)         \
  template <FloatingPoint T>              \
  inline T name(T x, T y) {               \
    return static_cast<T>(builtin(x, y)); \
  }                                       \
  namespace fast {                        \
  using metal::name;                      \
  }                                       \
  namespace precise {                     \
  using metal::name;                      \
  }

MSL_BINARY(pow, __builtin_powf)
MSL_BINARY(fmod, __builtin_fmodf)
MSL_BINARY(copysign, __builtin_copysignf)
MSL_BINARY(fmax, __builtin_fmaxf) // the number, if the other is NaN
MSL_BINARY(fmin, __builtin_fminf)

template <FloatingPoint T>
inline T fma(T a, T b, T c) {
  return static_cast<T>(__builtin_fmaf(a, b, c));
}

template <FloatingPoint T>
inline T ldexp(T x, int exponent) {
  return static_cast<T>(__builtin_ldexpf(x, exponent));
}

template <FloatingPoint T>
inline T frexp(T x, int& exponent) {
  return static_cast<T>(__builtin_frexpf(x, &exponent));
}

template <FloatingPoint T>
inline bool isnan(T x) {
  return __builtin_isnan(static_cast<float>(x));
}

template <FloatingPoint T>
inline bool isinf(T x) {
  return __builtin_isinf(static_cast<float>(x));
}

template <FloatingPoint T>
inline bool isfinite(T x) {
  return __builtin_isfinite(static_cast<float>(x));
}

template <FloatingPoint T>
inline bool signbit(T x) {
  return __builtin_signbit(static_cast<float>(x));
}

template <FloatingPoint T>
inline T sign(T x) {
  return static_cast<T>(x > T(0) ? 1 : x < T(0) ? -1 : 0);
}

// Both arguments have one type, or Metal calls it ambiguous. Metal leaves open
// what they give for NaN.
template <Number T>
inline T max(T x, T y) {
  if (x != x || y != y) {
    return emulator::open_choice() ? x : y;
  }
  return x < y ? y : x;
}

template <Number T>
inline T min(T x, T y) {
  if (x != x || y != y) {
    return emulator::open_choice() ? x : y;
  }
  return y < x ? y : x;
}

template <Number T>
inline T clamp(T x, T low, T high) {
  return min(max(x, low), high);
}

namespace fast {
using metal::clamp;
using metal::max;
using metal::min;
} // namespace fast
namespace precise {
using metal::clamp;
using metal::fma;
using metal::max;
using metal::min;
} // namespace precise

template <Number T>
inline T abs(T x) {
  return x < T(0) ? static_cast<T>(-x) : x;
}

template <typename T>
inline T select(T otherwise, T chosen, bool condition) {
  return condition ? chosen : otherwise;
}

template <Integer T>
inline T popcount(T x) {
  T count = 0;
  for (int i = 0; i < static_cast<int>(8 * sizeof(T)); i++) {
    count += (x >> i) & 1;
  }
  return count;
}

// Zero bits above the highest one.
template <Integer T>
inline T clz(T x) {
  int i = 8 * sizeof(T) - 1;
  while (i >= 0 && !((x >> i) & 1)) {
    i--;
  }
  return static_cast<T>(8 * sizeof(T) - 1 - i);
}

// Zero bits below the lowest one.
template <Integer T>
inline T ctz(T x) {
  int i = 0;
  while (i < static_cast<int>(8 * sizeof(T)) && !((x >> i) & 1)) {
    i++;
  }
  return static_cast<T>(i);
}

inline int mulhi(int x, int y) {
  return static_cast<int>((static_cast<long>(x) * y) >> 32);
}

inline uint mulhi(uint x, uint y) {
  return static_cast<uint>((static_cast<ulong>(x) * y) >> 32);
}

template <typename T>
struct numeric_limits;

template <Integer T>
struct numeric_limits<T> {
  static constexpr bool is_signed = static_cast<T>(-1) < T(0);
  static constexpr T max() {
    return is_signed ? static_cast<T>(~(T(1) << (8 * sizeof(T) - 1)))
                     : static_cast<T>(-1);
  }
  static constexpr T min() {
    return static_cast<T>(~max());
  }
};

#define MSL_FLOAT_LIMITS(T, MAX, MIN, EPSILON) \
  template <>                                  \
  struct numeric_limits<T> {                   \
    static constexpr T max() {                 \
      return T(MAX);                           \
    }                                          \
    static constexpr T lowest() {              \
      return T(-MAX);                          \
    }                                          \
    static constexpr T min() {                 \
      return T(MIN);                           \
    }                                          \
    static constexpr T epsilon() {             \
      return T(EPSILON);                       \
    }                                          \
    static constexpr T infinity() {            \
      return T(__builtin_inff());              \
    }                                          \
    static constexpr T quiet_NaN() {           \
      return T(__builtin_nanf(""));            \
    }                                          \
  };

MSL_FLOAT_LIMITS(float, 0x1.fffffep127f, 0x1p-126f, 0x1p-23f)
MSL_FLOAT_LIMITS(half, 65504.0f, 0x1p-14f, 0x1p-10f)
MSL_FLOAT_LIMITS(bfloat, 0x1.fep127f, 0x1p-126f, 0x1p-7f)

template <typename A, typename B>
constexpr bool is_same_v = __is_same(A, B);

} // namespace metal
