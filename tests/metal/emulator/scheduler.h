// Runs the threads of one threadgroup and lets them meet.
//
// A barrier or a simd operation is a meeting: a thread that comes to one pauses
// until all threads of its threadgroup or simdgroup have come to the same call.
// If some of them are elsewhere, or have returned, the kernel is divergent: a
// real GPU would hang or compute garbage.

#pragma once

#include <array>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "access.h"
#include "fault.h"
#include "fiber.h"
#include "kernel_interface.h"
#include "library.h"
#include "memory.h"

namespace emulator {

struct Meeting {
  enum class Scope { Simdgroup, Threadgroup };

  Scope scope;
  Call call;
  uint32_t fences = 0; // the memory that is ordered by it, FENCE_*
  uint32_t uniform = 0; // an argument that all threads have to agree on
  Payload payload = {};
};

struct Thread {
  enum class State { Running, Waiting, Finished };

  ThreadAttributes attributes;
  std::unique_ptr<Fiber> fiber = std::make_unique<Fiber>();
  State state = State::Finished;
  Meeting meeting; // the one it waits at
  // Return addresses of the functions it is in: a call inside a helper is the
  // same call for two threads only if both came there the same way.
  std::vector<const void*> call_path;
};

struct Settings {
  // 0 runs threads in ascending order, another number in an order of its own.
  uint32_t schedule = 0;
  uint32_t undefined_bits = 0;
  bool open_choice = false;
};

class Scheduler {
 public:
  Scheduler(
      Kernel kernel,
      std::vector<void*> buffers,
      Index3 grid,
      Index3 threadgroup,
      Settings settings,
      Memory& memory);

  // Runs all threads of one threadgroup to their end, or throws a Fault.
  void run_threadgroup(Index3 position);

  // The scheduler whose kernel is running, null outside kernels.
  static Scheduler* running();

  // Called by the running thread.
  Lanes meet(const Meeting&);
  void
  access(const void* address, size_t size, bool is_write, const void* code);
  [[noreturn]] void fail(Fault);
  std::vector<const void*>& call_path();

  const Settings& settings() const {
    return settings_;
  }
  Memory& memory() {
    return memory_;
  }

 private:
  void start_threads(Index3 position);
  void run_threads_until_they_wait();
  bool release_simdgroups();
  void release_threadgroup();
  bool all_finished() const;
  void expect_same_meeting(uint32_t begin, uint32_t end) const;
  Moment now(AddressSpace) const;

  Kernel kernel_;
  Library library_; // that holds the kernel's constants
  std::vector<void*> buffers_;
  Index3 grid_;
  Index3 threadgroup_;
  Settings settings_;
  Memory& memory_;

  std::mt19937 random_;
  std::vector<uint32_t> order_; // in which threads run
  std::vector<Thread> threads_;
  std::vector<Payload> exchanged_; // [threads] of the last simd operation
  uint32_t current_ = 0; // the running thread
  std::optional<Fault> fault_;

  // Barriers met so far in this threadgroup, counted per address space.
  struct Barriers {
    uint32_t threadgroup;
    std::vector<uint32_t> simdgroup; // [simdgroups]
  };
  std::array<Barriers, 2> barriers_;
};

} // namespace emulator
