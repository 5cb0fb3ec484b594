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
  begun_ = false;
  finished_ = false;
  getcontext(&beginning_);
  beginning_.uc_stack.ss_sp = stack_;
  beginning_.uc_stack.ss_size = STACK_SIZE;
  beginning_.uc_link = nullptr; // enter() does not return
  // makecontext passes integers only, so the pointer travels in two halves.
  auto self = reinterpret_cast<uintptr_t>(this);
  makecontext(
      &beginning_,
      reinterpret_cast<void (*)()>(enter),
      2,
      static_cast<unsigned>(self),
      static_cast<unsigned>(self >> 32));
}

void Fiber::enter(unsigned low, unsigned high) {
  auto self = reinterpret_cast<Fiber*>(uintptr_t(low) | uintptr_t(high) << 32);
  self->body_();
  self->finished_ = true;
  _longjmp(self->outside_, 1);
}

void Fiber::resume() {
  if (_setjmp(outside_)) {
    return; // the fiber paused or finished
  }
  if (begun_) {
    _longjmp(inside_, 1);
  }
  begun_ = true;
  setcontext(&beginning_);
}

void Fiber::pause() {
  if (!_setjmp(inside_)) {
    _longjmp(outside_, 1);
  }
}

bool Fiber::owns(const void* address) const {
  auto byte = static_cast<const std::byte*>(address);
  return byte >= stack_ && byte < stack_ + STACK_SIZE;
}

} // namespace emulator
