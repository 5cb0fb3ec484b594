// Metal's standard library as declarations, for Clang's "C++ for OpenCL": a
// language with Metal's address spaces and Metal's restrictions, whose
// compiler, unlike Apple's, runs anywhere. Nothing here is ever executed.

#pragma once

#pragma OPENCL EXTENSION cl_khr_fp16 : enable

#define device __global
#define threadgroup __local
#define constant __constant
#define thread __private

#define METAL_FUNC inline __attribute__((always_inline))
#define __METAL__ 1
#define __METAL_VERSION__ 310

typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef unsigned char uchar;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef unsigned short ushort;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef unsigned int uint;
typedef long int64_t;
typedef unsigned long uint64_t;
typedef unsigned long ulong;
typedef unsigned long size_t;
typedef long ptrdiff_t;
typedef __bf16 bfloat;
typedef half float16_t;
typedef bfloat bfloat16_t;

// Vectors. Metal writes float2(x, y); Clang wants a function for it.
#define MSL_VECTOR_TYPES(T)                           \
  typedef T T##2 __attribute__((ext_vector_type(2))); \
  typedef T T##3 __attribute__((ext_vector_type(3))); \
  typedef T T##4 __attribute__((ext_vector_type(4))); \
  T##2 make_##T##2(T);                                \
  T##2 make_##T##2(T, T);                             \
  T##3 make_##T##3(T);                                \
  T##3 make_##T##3(T, T, T);                          \
  T##4 make_##T##4(T);                                \
  T##4 make_##T##4(T, T, T, T);

MSL_VECTOR_TYPES(float)
MSL_VECTOR_TYPES(half)
MSL_VECTOR_TYPES(int)
MSL_VECTOR_TYPES(uint)
MSL_VECTOR_TYPES(short)
MSL_VECTOR_TYPES(ushort)
MSL_VECTOR_TYPES(uchar)

#define float2(...) make_float2(__VA_ARGS__)
#define float3(...) make_float3(__VA_ARGS__)
#define float4(...) make_float4(__VA_ARGS__)
#define half2(...) make_half2(__VA_ARGS__)
#define half3(...) make_half3(__VA_ARGS__)
#define half4(...) make_half4(__VA_ARGS__)
#define int2(...) make_int2(__VA_ARGS__)
#define int3(...) make_int3(__VA_ARGS__)
#define int4(...) make_int4(__VA_ARGS__)
#define uint2(...) make_uint2(__VA_ARGS__)
#define uint3(...) make_uint3(__VA_ARGS__)
#define uint4(...) make_uint4(__VA_ARGS__)

template <typename To, typename From>
To as_type(From);

namespace metal {

// For overloads: T is one of the types named.
template <bool, typename T>
struct enable_if {};
template <typename T>
struct enable_if<true, T> {
  typedef T type;
};
template <typename A, typename B>
constexpr constant bool is_same_v = __is_same(A, B);
template <typename T, typename... Types>
constexpr constant bool is_one_of = (__is_same(T, Types) || ...);

template <typename T>
constexpr constant bool is_float = is_one_of<T, float, half>;
template <typename T>
constexpr constant bool is_number = is_float<T> ||
    is_one_of<T, int, uint, short, ushort, char, int8_t, uchar, long, ulong>;
// What simd functions take: no bool, no 64-bit integer.
template <typename T>
constexpr constant bool is_simd_type = is_one_of<
    T,
    float,
    half,
    int,
    uint,
    short,
    ushort,
    char,
    int8_t,
    uchar,
    float2,
    float3,
    float4,
    int2,
    int3,
    int4,
    uint2,
    uint3,
    uint4>;

#define MSL_IF(condition, T) typename enable_if<condition<T>, T>::type

// Threads together.
enum class mem_flags : uint {
  mem_none = 0,
  mem_device = 1,
  mem_threadgroup = 2,
};
constexpr mem_flags operator|(mem_flags a, mem_flags b) {
  return mem_flags(uint(a) | uint(b));
}
__attribute__((convergent)) void threadgroup_barrier(mem_flags);
__attribute__((convergent)) void simdgroup_barrier(mem_flags);
bool simd_any(bool);
bool simd_all(bool);

#define MSL_REDUCTION(name) \
  template <typename T>     \
  MSL_IF(is_simd_type, T)   \
  name(T);
#define MSL_SHUFFLE(name) \
  template <typename T>   \
  MSL_IF(is_simd_type, T) \
  name(T, ushort);

MSL_REDUCTION(simd_sum)
MSL_REDUCTION(simd_product)
MSL_REDUCTION(simd_max)
MSL_REDUCTION(simd_min)
MSL_REDUCTION(simd_and)
MSL_REDUCTION(simd_or)
MSL_REDUCTION(simd_xor)
MSL_REDUCTION(simd_prefix_inclusive_sum)
MSL_REDUCTION(simd_prefix_exclusive_sum)
MSL_REDUCTION(simd_broadcast_first)
MSL_SHUFFLE(simd_broadcast)
MSL_SHUFFLE(simd_shuffle)
MSL_SHUFFLE(simd_shuffle_up)
MSL_SHUFFLE(simd_shuffle_down)
MSL_SHUFFLE(simd_shuffle_xor)

// Mathematics. A template parameter that occurs twice wants both arguments of
// one type, as Metal's overloads do.
#define MSL_UNARY_IN_NAMESPACE(name) \
  template <typename T>              \
  MSL_IF(is_float, T)                \
  name(T);
#define MSL_BINARY_IN_NAMESPACE(condition, name) \
  template <typename T>                          \
  MSL_IF(condition, T)                           \
  name(T, T);
#define MSL_TERNARY_IN_NAMESPACE(condition, name) \
  template <typename T>                           \
  MSL_IF(condition, T)                            \
  name(T, T, T);
#define MSL_EVERYWHERE(declaration) \
  declaration;                      \
  namespace fast {                  \
  declaration;                      \
  }                                 \
  namespace precise {               \
  declaration;                      \
  }
#define MSL_UNARY(name) MSL_EVERYWHERE(MSL_UNARY_IN_NAMESPACE(name))
#define MSL_BINARY(condition, name) \
  MSL_EVERYWHERE(MSL_BINARY_IN_NAMESPACE(condition, name))
#define MSL_TERNARY(condition, name) \
  MSL_EVERYWHERE(MSL_TERNARY_IN_NAMESPACE(condition, name))

// Functions with two results: which one metal:: means depends on the release of
// MLX and of macOS, so a kernel has to say fast:: or precise::.
#define MSL_OF_FLOATS(name, parameters) \
  template <typename T>                 \
  MSL_IF(is_float, T)                   \
  name parameters
#define MSL_FAST_OR_PRECISE(name, parameters)   \
  MSL_OF_FLOATS(name, parameters)               \
  __attribute__((unavailable(                   \
      "MLX decides between metal::fast::" #name \
      " and metal::precise::" #name)));         \
  namespace fast {                              \
  MSL_OF_FLOATS(name, parameters);              \
  }                                             \
  namespace precise {                           \
  MSL_OF_FLOATS(name, parameters);              \
  }

MSL_FAST_OR_PRECISE(exp, (T))
MSL_FAST_OR_PRECISE(exp2, (T))
MSL_FAST_OR_PRECISE(exp10, (T))
MSL_FAST_OR_PRECISE(log, (T))
MSL_FAST_OR_PRECISE(log2, (T))
MSL_FAST_OR_PRECISE(log10, (T))
MSL_FAST_OR_PRECISE(sqrt, (T))
MSL_FAST_OR_PRECISE(rsqrt, (T))
MSL_FAST_OR_PRECISE(sin, (T))
MSL_FAST_OR_PRECISE(cos, (T))
MSL_FAST_OR_PRECISE(tanh, (T))
MSL_FAST_OR_PRECISE(pow, (T, T))
MSL_UNARY(fabs)
MSL_UNARY(floor)
MSL_UNARY(ceil)
MSL_UNARY(round)
MSL_UNARY(rint)
MSL_UNARY(trunc)
MSL_UNARY(sign)
MSL_BINARY(is_float, fmod)
MSL_BINARY(is_float, copysign)
MSL_BINARY(is_float, fmax)
MSL_BINARY(is_float, fmin)
MSL_BINARY(is_number, max)
MSL_BINARY(is_number, min)
MSL_TERNARY(is_number, clamp)
MSL_TERNARY(is_float, fma)

#define MSL_PREDICATE(name) \
  template <typename T>     \
  typename enable_if<is_float<T>, bool>::type name(T);

MSL_PREDICATE(isnan)
MSL_PREDICATE(isinf)
MSL_PREDICATE(isfinite)
MSL_PREDICATE(signbit)

template <typename T>
MSL_IF(is_float, T)
ldexp(T, int);
template <typename T>
MSL_IF(is_float, T)
frexp(T, thread int&);
template <typename T>
MSL_IF(is_number, T)
abs(T);
template <typename T>
T select(T, T, bool);
template <typename T>
MSL_IF(is_number, T)
popcount(T);
template <typename T>
MSL_IF(is_number, T)
clz(T);
template <typename T>
MSL_IF(is_number, T)
ctz(T);
int mulhi(int, int);
uint mulhi(uint, uint);

template <typename T>
struct numeric_limits {
  static constexpr T max();
  static constexpr T min();
  static constexpr T lowest();
};

#define MSL_FLOAT_LIMITS(T)          \
  template <>                        \
  struct numeric_limits<T> {         \
    static constexpr T max() {       \
      return T(1.0f);                \
    }                                \
    static constexpr T lowest() {    \
      return T(1.0f);                \
    }                                \
    static constexpr T min() {       \
      return T(1.0f);                \
    }                                \
    static constexpr T epsilon() {   \
      return T(1.0f);                \
    }                                \
    static constexpr T infinity() {  \
      return T(1.0f);                \
    }                                \
    static constexpr T quiet_NaN() { \
      return T(1.0f);                \
    }                                \
  };

MSL_FLOAT_LIMITS(float)
MSL_FLOAT_LIMITS(half)
MSL_FLOAT_LIMITS(bfloat)

} // namespace metal

// As MLX's preamble does.
using namespace metal;
