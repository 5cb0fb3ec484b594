// What ends a launch: the first thing that a real GPU need not get right.

#pragma once

#include <string>

namespace emulator {

struct Fault {
  std::string message;
  // Where in the kernel's machine code, if the message does not name the line.
  const void* code = nullptr;
};

} // namespace emulator
