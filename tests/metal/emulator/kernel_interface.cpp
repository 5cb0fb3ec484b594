#include "kernel_interface.h"

#include "scheduler.h"

namespace emulator {

void threadgroup_barrier(const Call& call, uint32_t fences) {
  Scheduler::running()->meet(
      {.scope = Meeting::Scope::Threadgroup, .call = call, .fences = fences});
}

void simdgroup_barrier(const Call& call, uint32_t fences) {
  Scheduler::running()->meet(
      {.scope = Meeting::Scope::Simdgroup, .call = call, .fences = fences});
}

Lanes exchange(const Call& call, const Payload& payload, uint32_t uniform) {
  return Scheduler::running()->meet(
      {.scope = Meeting::Scope::Simdgroup,
       .call = call,
       .uniform = uniform,
       .payload = payload});
}

void* threadgroup_variable(const char* name, uint64_t size) {
  return Scheduler::running()->memory().threadgroup_variable(name, size).data;
}

uint32_t undefined_bits() {
  return Scheduler::running()->settings().undefined_bits;
}

bool open_choice() {
  return Scheduler::running()->settings().open_choice;
}

} // namespace emulator
