// How the emulator sees what a kernel does: the kernel is compiled with
// -fsanitize=thread and -fsanitize=undefined, which call these functions before
// every access to memory and after every undefined operation. The compiler's
// own implementations of them are not linked.

#include <cstdint>
#include <string>

#include "scheduler.h"

using emulator::Scheduler;

namespace {

void check(const void* address, size_t size, bool is_write, const void* code) {
  if (auto scheduler = Scheduler::running()) {
    scheduler->access(address, size, is_write, code);
  }
}

// The beginning of what the compiler tells about an undefined operation.
struct SourceLocation {
  const char* file;
  uint32_t line;
  uint32_t column;
};

[[noreturn]] void undefined(const SourceLocation& place, const char* what) {
  Scheduler::running()->fail(
      {std::string("undefined: ") + what + " (line " +
       std::to_string(place.line) + ", column " + std::to_string(place.column) +
       ")"});
}

} // namespace

#define CALLER __builtin_return_address(0)

// Memory, by the size of the access.
#define MEMORY_CALLBACKS(size)                        \
  extern "C" void __tsan_read##size(void* address) {  \
    check(address, size, false, CALLER);              \
  }                                                   \
  extern "C" void __tsan_write##size(void* address) { \
    check(address, size, true, CALLER);               \
  }

MEMORY_CALLBACKS(1)
MEMORY_CALLBACKS(2)
MEMORY_CALLBACKS(4)
MEMORY_CALLBACKS(8)
MEMORY_CALLBACKS(16)

#define UNALIGNED_MEMORY_CALLBACKS(size)                        \
  extern "C" void __tsan_unaligned_read##size(void* address) {  \
    check(address, size, false, CALLER);                        \
  }                                                             \
  extern "C" void __tsan_unaligned_write##size(void* address) { \
    check(address, size, true, CALLER);                         \
  }

UNALIGNED_MEMORY_CALLBACKS(2)
UNALIGNED_MEMORY_CALLBACKS(4)
UNALIGNED_MEMORY_CALLBACKS(8)
UNALIGNED_MEMORY_CALLBACKS(16)

extern "C" void __tsan_read_range(void* address, size_t size) {
  check(address, size, false, CALLER);
}

extern "C" void __tsan_write_range(void* address, size_t size) {
  check(address, size, true, CALLER);
}

// Copies of whole structs (Clang).
extern "C" void* __tsan_memcpy(void* to, const void* from, size_t size) {
  check(from, size, false, CALLER);
  check(to, size, true, CALLER);
  return __builtin_memcpy(to, from, size);
}

extern "C" void* __tsan_memset(void* to, int value, size_t size) {
  check(to, size, true, CALLER);
  return __builtin_memset(to, value, size);
}

// Functions, by the place they were called from.
extern "C" void __tsan_func_entry(void* call_site) {
  if (auto scheduler = Scheduler::running()) {
    scheduler->call_path().push_back(call_site);
  }
}

extern "C" void __tsan_func_exit() {
  if (auto scheduler = Scheduler::running()) {
    scheduler->call_path().pop_back();
  }
}

extern "C" void __tsan_init() {}

// Undefined operations.
#define UNDEFINED_CALLBACK(name, what)                                    \
  extern "C" void __ubsan_handle_##name(const SourceLocation* location) { \
    undefined(*location, what);                                           \
  }

UNDEFINED_CALLBACK(add_overflow, "an integer sum overflows")
UNDEFINED_CALLBACK(sub_overflow, "an integer difference overflows")
UNDEFINED_CALLBACK(mul_overflow, "an integer product overflows")
UNDEFINED_CALLBACK(negate_overflow, "an integer negation overflows")
UNDEFINED_CALLBACK(divrem_overflow, "an integer division by zero or overflow")
UNDEFINED_CALLBACK(shift_out_of_bounds, "a shift by too many bits")
UNDEFINED_CALLBACK(out_of_bounds, "an index past the end of an array")
