// The shared library that a kernel was compiled into: its machine code and its
// constants.

#pragma once

#include <cstdint>

namespace emulator {

struct Library {
  uintptr_t begin = 0;
  uintptr_t end = 0;

  bool contains(const void* address) const {
    auto at = reinterpret_cast<uintptr_t>(address);
    return at >= begin && at < end;
  }

  // Where in the library some machine code is, as debuggers count it.
  uint64_t offset_of(const void* code) const {
    return reinterpret_cast<uintptr_t>(code) - begin;
  }
};

Library library_of(const void* code);

} // namespace emulator
