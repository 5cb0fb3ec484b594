// What the kernels' text takes from headers where MLX compiles it for CUDA: for
// a compilation of our own, which includes none (csrc/gpu/cuda_text.cpp). It
// comes before cuda_prelude.h.

typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;

struct float16_t {
  uint16_t bits;

  float16_t() = default;
  __device__ explicit float16_t(float x) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  }
  __device__ operator float() const {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
  }
};

struct bfloat16_t {
  uint16_t bits;

  bfloat16_t() = default;
  __device__ explicit bfloat16_t(float x) {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  }
  __device__ operator float() const {
    return __uint_as_float(uint32_t(bits) << 16);
  }
};

// A stride, which comes as two arguments of 32 bits.
__device__ inline int64_t stride_of(uint32_t low, uint32_t high) {
  return int64_t(uint64_t(high) << 32 | low);
}
