// What a kernel may do with memory: stay inside its arrays, write only outputs,
// read only what was written, and race with no other thread.

#pragma once

#include <cstddef>
#include <optional>

#include "fault.h"
#include "memory.h"

namespace emulator {

struct Access {
  const void* address;
  size_t size;
  bool is_write;
  Moment moment;
  const void* code; // the machine code that makes the access
};

// Records the access, or says what is wrong with it.
std::optional<Fault> check_access(Region&, const Access&);

} // namespace emulator
