// Metal's functions through which threads work together: barriers and simd
// operations. Each is a template of this kind: bring a value, meet the other
// lanes, compute the result from what all of them brought.

#pragma once

#include <source_location>

#include "../kernel_interface.h"
#include "msl_types.h"

namespace metal {

enum class mem_flags : uint {
  mem_none = 0,
  mem_device = emulator::FENCE_DEVICE,
  mem_threadgroup = emulator::FENCE_THREADGROUP,
};

inline mem_flags operator|(mem_flags a, mem_flags b) {
  return static_cast<mem_flags>(static_cast<uint>(a) | static_cast<uint>(b));
}

// Always inlined, so that the functions here do not appear in call paths.
#define MSL_FUNCTION inline __attribute__((always_inline))
#define MSL_CALL_SITE \
  std::source_location site = std::source_location::current()
#define MSL_CALL(name)               \
  emulator::Call {                   \
    name, site.line(), site.column() \
  }

MSL_FUNCTION void threadgroup_barrier(mem_flags flags, MSL_CALL_SITE) {
  emulator::threadgroup_barrier(
      MSL_CALL("threadgroup_barrier"), static_cast<uint>(flags));
}

MSL_FUNCTION void simdgroup_barrier(mem_flags flags, MSL_CALL_SITE) {
  emulator::simdgroup_barrier(
      MSL_CALL("simdgroup_barrier"), static_cast<uint>(flags));
}

// The values that the lanes of the simdgroup brought to one call.
template <typename T>
struct Exchanged {
  static_assert(
      !__is_same(T, bool) && !__is_same(T, long) && !__is_same(T, ulong),
      "simd functions take neither bool nor 64-bit integers");

  MSL_FUNCTION
  Exchanged(const emulator::Call& call, T value, uint uniform = 0) {
    emulator::Payload payload;
    __builtin_memcpy(payload.bytes, &value, sizeof(T));
    lanes = emulator::exchange(call, payload, uniform);
  }

  // A lane that does not exist has an undefined value. (Not checked: the
  // payloads are the emulator's memory, not the kernel's.)
  __attribute__((no_sanitize("thread"))) T operator[](int lane) const {
    T value;
    if (lane >= 0 && lane < static_cast<int>(lanes.count)) {
      __builtin_memcpy(&value, lanes.payloads[lane].bytes, sizeof(T));
    } else {
      uint pattern[4];
      for (uint& word : pattern) {
        word = emulator::undefined_bits();
      }
      __builtin_memcpy(&value, pattern, sizeof(T));
    }
    return value;
  }

  int self() const {
    return static_cast<int>(lanes.self);
  }

  // Combines the lanes [0, count) in pairs, as a butterfly of shuffles does.
  template <typename Combine>
  T reduce(Combine combine) const {
    T values[emulator::SIMDGROUP_SIZE];
    int count = static_cast<int>(lanes.count);
    for (int i = 0; i < count; i++) {
      values[i] = (*this)[i];
    }
    for (int distance = 16; distance > 0; distance /= 2) {
      for (int i = 0; i < distance && i + distance < count; i++) {
        values[i] = combine(values[i], values[i + distance]);
      }
      count = count < distance ? count : distance;
    }
    return values[0];
  }

  // Sums the lanes [0, count) one after the other.
  T sum_of_first(int count) const {
    T sum = T(0);
    for (int i = 0; i < count; i++) {
      sum = T(sum + (*this)[i]);
    }
    return sum;
  }

  emulator::Lanes lanes;
};

// Shuffles whose distance has to be the same in all lanes. (SOURCE is the lane
// that the value comes from.)
#define MSL_UNIFORM_SHUFFLE(name, SOURCE)                        \
  template <typename T>                                          \
  MSL_FUNCTION T name(T value, ushort distance, MSL_CALL_SITE) { \
    Exchanged<T> lanes(MSL_CALL(#name), value, distance);        \
    return lanes[SOURCE];                                        \
  }

MSL_UNIFORM_SHUFFLE(simd_shuffle_up, lanes.self() - distance)
MSL_UNIFORM_SHUFFLE(simd_shuffle_down, lanes.self() + distance)
MSL_UNIFORM_SHUFFLE(simd_shuffle_xor, lanes.self() ^ distance)
MSL_UNIFORM_SHUFFLE(simd_broadcast, distance)

template <typename T>
MSL_FUNCTION T simd_shuffle(T value, ushort lane, MSL_CALL_SITE) {
  Exchanged<T> lanes(MSL_CALL("simd_shuffle"), value);
  return lanes[lane];
}

template <typename T>
MSL_FUNCTION T simd_broadcast_first(T value, MSL_CALL_SITE) {
  Exchanged<T> lanes(MSL_CALL("simd_broadcast_first"), value);
  return lanes[0];
}

#define MSL_REDUCTION(name, COMBINED)                          \
  template <typename T>                                        \
  MSL_FUNCTION T name(T value, MSL_CALL_SITE) {                \
    Exchanged<T> lanes(MSL_CALL(#name), value);                \
    return lanes.reduce([](T a, T b) { return T(COMBINED); }); \
  }

MSL_REDUCTION(simd_sum, a + b)
MSL_REDUCTION(simd_product, a* b)
MSL_REDUCTION(simd_max, metal::max(a, b))
MSL_REDUCTION(simd_min, metal::min(a, b))
MSL_REDUCTION(simd_and, a& b)
MSL_REDUCTION(simd_or, a | b)
MSL_REDUCTION(simd_xor, a ^ b)

template <typename T>
MSL_FUNCTION T simd_prefix_inclusive_sum(T value, MSL_CALL_SITE) {
  Exchanged<T> lanes(MSL_CALL("simd_prefix_inclusive_sum"), value);
  return lanes.sum_of_first(lanes.self() + 1);
}

template <typename T>
MSL_FUNCTION T simd_prefix_exclusive_sum(T value, MSL_CALL_SITE) {
  Exchanged<T> lanes(MSL_CALL("simd_prefix_exclusive_sum"), value);
  return lanes.sum_of_first(lanes.self());
}

MSL_FUNCTION bool simd_any(bool value, MSL_CALL_SITE) {
  Exchanged<int> lanes(MSL_CALL("simd_any"), value);
  return lanes.reduce([](int a, int b) { return a | b; });
}

MSL_FUNCTION bool simd_all(bool value, MSL_CALL_SITE) {
  Exchanged<int> lanes(MSL_CALL("simd_all"), value);
  return lanes.reduce([](int a, int b) { return a & b; });
}

} // namespace metal

// What emulator.py writes in place of `threadgroup T name[...]`: the array in
// threadgroup memory, the same one for all threads of the threadgroup.
namespace emulator {

template <typename T>
MSL_FUNCTION T& threadgroup_array(const char* name) {
  return *static_cast<T*>(threadgroup_variable(name, sizeof(T)));
}

inline uint attribute(uint32_t value) {
  return value;
}

inline uint3 attribute(Index3 value) {
  return uint3(value.x, value.y, value.z);
}

} // namespace emulator
