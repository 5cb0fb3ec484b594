// A function that can stop in the middle and go on later. One fiber is one GPU
// thread; all fibers share one host thread, so that the order in which they
// run is the emulator's choice and every run can be repeated.

#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstddef>
#include <functional>

namespace emulator {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes the fiber ready to run `body` from its beginning.
  void start(std::function<void()> body);

  // Runs until the body pauses or ends. Called from outside the fiber.
  void resume();

  // Gives control back to whoever called resume(). Called from inside.
  void pause();

  bool finished() const {
    return finished_;
  }

  // Whether the address lies on this fiber's stack, where a GPU thread's
  // private variables are.
  bool owns(const void* address) const;

 private:
  static void enter(unsigned low, unsigned high);

  // A context begins the body. From then on jumps go in and out, since a
  // change of context takes a system call and a jump takes none.
  ucontext_t beginning_;
  jmp_buf inside_;
  jmp_buf outside_;
  std::byte* stack_;
  std::function<void()> body_;
  bool begun_ = false;
  bool finished_ = true;
};

} // namespace emulator
