// The part of the Metal Shading Language that the kernels use, defined for
// NVRTC. A simdgroup is a warp. Threadgroups are one-dimensional.

#define device
#define constant
#define thread
#define threadgroup __shared__
#define METAL_FUNC __device__ __forceinline__

// The host defines LAUNCH_BOUNDS: the most threads of a threadgroup, and the
// threadgroups that should fit on a multiprocessor.
#undef __global__
#define __global__ __attribute__((global)) __launch_bounds__(LAUNCH_BOUNDS)

#define thread_position_in_threadgroup threadIdx
#define threadgroup_position_in_grid blockIdx
#define threads_per_threadgroup blockDim
#define threadgroups_per_grid gridDim
#define thread_index_in_simdgroup (threadIdx.x % 32)
// The shuffle tells the compiler that the value is the same in all lanes.
#define simdgroup_index_in_threadgroup \
  (__shfl_sync(metal::all_lanes, threadIdx.x / 32, 0))

typedef unsigned int uint;

// See pointers.h.
namespace mlx_ctc {
template <typename T>
using Shared = T*;
template <typename T>
using Device = T*;
} // namespace mlx_ctc

template <typename To, typename From>
METAL_FUNC To as_type(From from) {
  static_assert(sizeof(To) == sizeof(From), "as_type keeps the size");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

namespace metal {

enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2 };

METAL_FUNC constexpr mem_flags operator|(mem_flags a, mem_flags b) {
  return mem_flags(int(a) | int(b));
}

// CUDA's barriers order both kinds of memory.
METAL_FUNC void threadgroup_barrier(mem_flags) {
  __syncthreads();
}
METAL_FUNC void simdgroup_barrier(mem_flags) {
  __syncwarp();
}

constexpr unsigned all_lanes = 0xffffffffu;

template <typename T>
METAL_FUNC T simd_shuffle_up(T x, unsigned delta) {
  return __shfl_up_sync(all_lanes, x, delta);
}
template <typename T>
METAL_FUNC T simd_shuffle_down(T x, unsigned delta) {
  return __shfl_down_sync(all_lanes, x, delta);
}
template <typename T>
METAL_FUNC T simd_shuffle_xor(T x, unsigned mask) {
  return __shfl_xor_sync(all_lanes, x, mask);
}
template <typename T>
METAL_FUNC T simd_broadcast(T x, unsigned lane) {
  return __shfl_sync(all_lanes, x, lane);
}
METAL_FUNC int simd_max(int x) {
  return __reduce_max_sync(all_lanes, x);
}
METAL_FUNC bool simd_all(bool x) {
  return __all_sync(all_lanes, x);
}

METAL_FUNC uint min(uint a, uint b) {
  return ::min(a, b);
}
METAL_FUNC uint max(uint a, uint b) {
  return ::max(a, b);
}
METAL_FUNC int max(int a, int b) {
  return ::max(a, b);
}
METAL_FUNC int min(int a, int b) {
  return ::min(a, b);
}
METAL_FUNC int clamp(int x, int least, int greatest) {
  return ::min(::max(x, least), greatest);
}
METAL_FUNC float max(float a, float b) {
  return fmaxf(a, b);
}
METAL_FUNC float clamp(float x, float least, float greatest) {
  return fminf(fmaxf(x, least), greatest);
}
METAL_FUNC float abs(float x) {
  return fabsf(x);
}
METAL_FUNC float fma(float a, float b, float c) {
  return fmaf(a, b, c);
}
METAL_FUNC bool isnan(float x) {
  return x != x;
}

namespace fast {
METAL_FUNC float exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
} // namespace fast

namespace precise {
METAL_FUNC float log(float x) {
  return logf(x);
}
// CUDA's fast one is exact for 0.
METAL_FUNC float exp2(float x) {
  return fast::exp2(x);
}
} // namespace precise

template <typename T>
struct numeric_limits;

template <>
struct numeric_limits<float> {
  METAL_FUNC static float infinity() {
    return __int_as_float(0x7f800000);
  }
  METAL_FUNC static float quiet_NaN() {
    return __int_as_float(0x7fc00000);
  }
};

} // namespace metal
