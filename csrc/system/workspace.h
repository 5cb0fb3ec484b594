// Memory for the rows that one sequence needs, each begun on a cache line.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mlx_ctc::cpu::MLX_CTC_ISA {

class Workspace {
 public:
  explicit Workspace(std::byte* begin) : next_(begin) {}

  template <typename T>
  T* take(int64_t count) {
    auto* taken = reinterpret_cast<T*>(next_);
    next_ += (count * sizeof(T) + 63) / 64 * 64;
    return taken;
  }

 private:
  std::byte* next_;
};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
