// The memory that a kernel can reach, byte by byte: device buffers and
// threadgroup variables.
//
// Each of them lies alone in the middle of 4 GiB of address space. An index
// that leaves one never lands in another, so the address alone tells which
// array an access was meant for.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "history.h"

namespace emulator {

enum class AddressSpace { Device, Threadgroup };

struct Region {
  std::string name;
  AddressSpace space;
  bool writable;
  std::byte* data;
  size_t size;
  std::vector<uint8_t> initialised; // [size], 0 or 1
  std::vector<History> history; // [size]
};

class Memory {
 public:
  Memory();
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  Region& add(std::string name, AddressSpace, bool writable, size_t size);

  // Returns the threadgroup variable of this name; the first call allocates it.
  Region& threadgroup_variable(const char* name, size_t size);
  size_t threadgroup_bytes() const;

  // Threadgroup memory has no value when a threadgroup begins.
  void forget_threadgroup_memory();

  // The array for which an address was meant, or null for private memory and
  // constants of the program.
  Region* region_of(const void* address);

 private:
  std::byte* base_;
  std::vector<std::unique_ptr<Region>> regions_;
};

} // namespace emulator
