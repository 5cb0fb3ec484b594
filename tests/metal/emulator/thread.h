// What a GPU thread knows about itself: Metal's thread attributes.

#pragma once

#include <cstdint>

namespace emulator {

constexpr uint32_t SIMDGROUP_SIZE = 32;

struct Index3 {
  uint32_t x, y, z;

  uint32_t volume() const {
    return x * y * z;
  }
};

// The members carry the attributes' own names, so that the call of a kernel
// can be written from its signature alone.
struct ThreadAttributes {
  Index3 thread_position_in_grid;
  Index3 thread_position_in_threadgroup;
  Index3 threadgroup_position_in_grid;
  Index3 threads_per_grid;
  Index3 threads_per_threadgroup;
  Index3 threadgroups_per_grid;
  uint32_t thread_index_in_threadgroup;
  uint32_t thread_index_in_simdgroup;
  uint32_t simdgroup_index_in_threadgroup;
  uint32_t simdgroups_per_threadgroup;
  uint32_t threads_per_simdgroup = SIMDGROUP_SIZE;
  uint32_t thread_execution_width = SIMDGROUP_SIZE;
};

// The kernel as the emulator calls it, once per thread.
using Kernel = void (*)(void* const* buffers, const ThreadAttributes& self);

} // namespace emulator
