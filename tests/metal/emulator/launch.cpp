// The emulator's one entry point: runs a kernel over a grid, as
// MTLComputeCommandEncoder's dispatchThreads does.

#include <cstring>
#include <string>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "fault.h"
#include "library.h"
#include "memory.h"
#include "scheduler.h"

namespace emulator {

namespace {

// Metal's limits.
constexpr uint32_t MAX_THREADS_PER_THREADGROUP = 1024;
constexpr size_t MAX_THREADGROUP_BYTES = 32 << 10;

// The types that emulator.py fills in.
struct Buffer {
  const char* name;
  void* data;
  uint8_t* initialised; // [size], 0 or 1
  size_t size;
  uint32_t writable;
};

struct Launch {
  Kernel kernel;
  const Buffer* buffers;
  uint32_t buffer_count;
  Index3 grid;
  Index3 threadgroup;
  Settings settings;
};

struct Report {
  char message[1024];
  uint64_t code_offset; // of Fault::code in the kernel's shared library, or 0
};

// Makes the host treat subnormal floats as zero, as Metal may.
class FlushSubnormals {
 public:
#if defined(__SSE__)
  FlushSubnormals() : saved_(_mm_getcsr()) {
    _mm_setcsr(saved_ | 0x8040); // flush results, take operands for zero
  }
  ~FlushSubnormals() {
    _mm_setcsr(saved_);
  }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushSubnormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" : : "r"(saved_ | 1u << 24));
  }
  ~FlushSubnormals() {
    asm volatile("msr fpcr, %0" : : "r"(saved_));
  }

 private:
  uint64_t saved_;
#endif
};

void check_limits(const Launch& launch) {
  const Index3& grid = launch.grid;
  const Index3& threadgroup = launch.threadgroup;
  if (threadgroup.volume() == 0 || grid.x % threadgroup.x ||
      grid.y % threadgroup.y || grid.z % threadgroup.z) {
    // Metal would run smaller threadgroups at the edge, CUDA full ones.
    throw Fault{"limits: the grid is not a multiple of the threadgroup"};
  }
  if (threadgroup.volume() > MAX_THREADS_PER_THREADGROUP) {
    throw Fault{
        "limits: " + std::to_string(threadgroup.volume()) +
        " threads per threadgroup, 1024 at most"};
  }
}

void check_threadgroup_memory(const Memory& memory) {
  if (memory.threadgroup_bytes() > MAX_THREADGROUP_BYTES) {
    throw Fault{
        "limits: " + std::to_string(memory.threadgroup_bytes()) +
        " bytes of threadgroup memory, 32768 at most"};
  }
}

void run(const Launch& launch) {
  check_limits(launch);
  Memory memory;
  std::vector<Region*> regions;
  std::vector<void*> arguments;
  for (uint32_t i = 0; i < launch.buffer_count; ++i) {
    const Buffer& buffer = launch.buffers[i];
    Region& region = memory.add(
        buffer.name, AddressSpace::Device, buffer.writable, buffer.size);
    std::memcpy(region.data, buffer.data, buffer.size);
    region.initialised.assign(
        buffer.initialised, buffer.initialised + buffer.size);
    regions.push_back(&region);
    arguments.push_back(region.data);
  }

  Scheduler scheduler(
      launch.kernel,
      arguments,
      launch.grid,
      launch.threadgroup,
      launch.settings,
      memory);
  FlushSubnormals flush_subnormals;
  for (uint32_t z = 0; z < launch.grid.z / launch.threadgroup.z; ++z) {
    for (uint32_t y = 0; y < launch.grid.y / launch.threadgroup.y; ++y) {
      for (uint32_t x = 0; x < launch.grid.x / launch.threadgroup.x; ++x) {
        scheduler.run_threadgroup({x, y, z});
        check_threadgroup_memory(memory);
      }
    }
  }

  for (uint32_t i = 0; i < launch.buffer_count; ++i) {
    const Buffer& buffer = launch.buffers[i];
    if (buffer.writable) {
      const Region& region = *regions[i];
      std::memcpy(buffer.data, region.data, region.size);
      std::memcpy(buffer.initialised, region.initialised.data(), region.size);
    }
  }
}

} // namespace

// Returns whether the launch went through; the report says why not.
extern "C" bool emulator_run(const Launch* launch, Report* report) {
  try {
    run(*launch);
    return true;
  } catch (const Fault& fault) {
    std::strncpy(
        report->message, fault.message.c_str(), sizeof(report->message) - 1);
    report->code_offset =
        fault.code ? library_of(fault.code).offset_of(fault.code) : 0;
    return false;
  }
}

} // namespace emulator
