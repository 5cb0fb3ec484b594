#include "memory.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

namespace emulator {

namespace {

constexpr size_t SLOT_SIZE = size_t(1) << 32;
constexpr size_t MAX_REGIONS = 64;

// What undefined memory holds: NaN as a float, -1 as an integer.
constexpr int UNDEFINED_BYTE = 0xff;

} // namespace

Memory::Memory() {
  void* base = mmap(
      nullptr,
      SLOT_SIZE * MAX_REGIONS,
      PROT_NONE,
      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
      -1,
      0);
  if (base == MAP_FAILED) {
    throw std::bad_alloc();
  }
  base_ = static_cast<std::byte*>(base);
}

Memory::~Memory() {
  munmap(base_, SLOT_SIZE * MAX_REGIONS);
}

Region&
Memory::add(std::string name, AddressSpace space, bool writable, size_t size) {
  if (regions_.size() == MAX_REGIONS) {
    throw std::bad_alloc();
  }
  std::byte* data = base_ + SLOT_SIZE * regions_.size() + SLOT_SIZE / 2;
  if (size > 0 && mprotect(data, size, PROT_READ | PROT_WRITE) != 0) {
    throw std::bad_alloc();
  }
  std::memset(data, UNDEFINED_BYTE, size);
  regions_.push_back(
      std::make_unique<Region>(Region{
          std::move(name),
          space,
          writable,
          data,
          size,
          std::vector<uint8_t>(size, 0),
          std::vector<History>(size)}));
  return *regions_.back();
}

Region& Memory::threadgroup_variable(const char* name, size_t size) {
  for (auto& region : regions_) {
    if (region->space == AddressSpace::Threadgroup && region->name == name) {
      return *region;
    }
  }
  return add(name, AddressSpace::Threadgroup, /* writable = */ true, size);
}

size_t Memory::threadgroup_bytes() const {
  // Metal aligns each variable to 16 bytes.
  size_t total = 0;
  for (auto& region : regions_) {
    if (region->space == AddressSpace::Threadgroup) {
      total += (region->size + 15) / 16 * 16;
    }
  }
  return total;
}

void Memory::forget_threadgroup_memory() {
  for (auto& region : regions_) {
    if (region->space == AddressSpace::Threadgroup) {
      std::memset(region->data, UNDEFINED_BYTE, region->size);
      region->initialised.assign(region->size, 0);
      region->history.assign(region->size, {});
    }
  }
}

Region* Memory::region_of(const void* address) {
  // An address below the base wraps to a slot far past the last one.
  auto offset =
      reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(base_);
  size_t slot = offset / SLOT_SIZE;
  return slot < regions_.size() ? regions_[slot].get() : nullptr;
}

} // namespace emulator
