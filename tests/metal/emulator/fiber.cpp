#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

namespace emulator {

namespace {

// Address space only: a page costs memory once a thread touches it.
constexpr size_t STACK_SIZE = 256 << 10;

} // namespace

Fiber::Fiber() {
  void* stack = mmap(
      nullptr,
      STACK_SIZE,
      PROT_READ | PROT_WRITE,
      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
      -1,
      0);
  if (stack == MAP_FAILED) {
    throw std::bad_alloc();
  }
  stack_ = static_cast<std::byte*>(stack);
}

Fiber::~Fiber() {
  munmap(stack_, STACK_SIZE);
}

void Fiber::start(std::function<void()> body) {
  body_ = std::move(body);
  finished_ = false;
  getcontext(&inside_);
  inside_.uc_stack.ss_sp = stack_;
  inside_.uc_stack.ss_size = STACK_SIZE;
  inside_.uc_link = &outside_;
  // makecontext passes integers only, so the pointer travels in two halves.
  auto self = reinterpret_cast<uintptr_t>(this);
  makecontext(
      &inside_,
      reinterpret_cast<void (*)()>(enter),
      2,
      static_cast<unsigned>(self),
      static_cast<unsigned>(self >> 32));
}

void Fiber::enter(unsigned low, unsigned high) {
  auto self = reinterpret_cast<Fiber*>(uintptr_t(low) | uintptr_t(high) << 32);
  self->body_();
  self->finished_ = true;
}

void Fiber::resume() {
  swapcontext(&outside_, &inside_);
}

void Fiber::pause() {
  swapcontext(&inside_, &outside_);
}

bool Fiber::owns(const void* address) const {
  auto byte = static_cast<const std::byte*>(address);
  return byte >= stack_ && byte < stack_ + STACK_SIZE;
}

} // namespace emulator
