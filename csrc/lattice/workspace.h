// The memory that one sequence needs, handed out array by array.
//
// The classes that need arrays take them in their constructors and write to
// them later. So the constructors, run on a workspace without memory, measure
// how many bytes they take.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>

#include "lattice/sequence.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

class Workspace {
 public:
  // Measures: what take() returns must not be used.
  Workspace() = default;

  // `memory` begins on a cache line.
  explicit Workspace(std::span<std::byte> memory)
      : begin_(reinterpret_cast<uintptr_t>(memory.data())),
        next_(begin_),
        end_(begin_ + memory.size()) {}

  // An array of `count` elements that begins on a cache line.
  template <typename T>
  T* take(int64_t count) {
    auto* taken = reinterpret_cast<T*>(next_);
    next_ += whole_cache_lines(count * sizeof(T));
    assert(next_ <= end_);
    return taken;
  }

  // How many have been taken.
  size_t bytes() const {
    return next_ - begin_;
  }

 private:
  uintptr_t begin_ = cache_line; // not 0: no array is at a null pointer
  uintptr_t next_ = cache_line;
  uintptr_t end_ = UINTPTR_MAX;
};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
