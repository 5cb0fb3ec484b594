// What the Metal library of a kernel (msl/) asks of the emulator. Compiled into
// every kernel, hence no library headers.

#pragma once

#include "thread.h"

namespace emulator {

// A call in the kernel's text.
struct Call {
  const char* function;
  uint32_t line;
  uint32_t column;
};

// A scalar or vector on its way from one lane to others.
struct Payload {
  alignas(16) unsigned char bytes[16];
};

// What the lanes of a simdgroup brought to a simd operation.
struct Lanes {
  uint32_t count; // less than 32 in the last simdgroup of an odd threadgroup
  uint32_t self;
  const Payload* payloads; // [count]
};

// Bits of metal::mem_flags.
constexpr uint32_t FENCE_DEVICE = 1;
constexpr uint32_t FENCE_THREADGROUP = 2;

// Each of these returns once all threads concerned have made the same call.
void threadgroup_barrier(const Call&, uint32_t fences);
void simdgroup_barrier(const Call&, uint32_t fences);
// `uniform` is an argument that Metal wants to be the same in all lanes.
Lanes exchange(const Call&, const Payload&, uint32_t uniform = 0);

void* threadgroup_variable(const char* name, uint64_t size);

// Metal leaves some results open. A kernel is run twice, and each run answers
// these differently: what differs in the end has made use of them.
uint32_t undefined_bits();
bool open_choice();

} // namespace emulator
