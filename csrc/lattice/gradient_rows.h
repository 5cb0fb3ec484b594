// The gradient's rows, (frames, classes), in the type of the scores.
#pragma once

#include <cstdint>

#include "lattice/scores.h"
#include "simd/blocks.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

template <typename Real>
class GradientRows {
 public:
  // `stride`: elements from one frame's row to the next.
  GradientRows(
      const ElementType<Real>& type,
      const Sequence& sequence,
      void* gradient,
      int64_t stride)
      : type_(type),
        C_(sequence.classes),
        begin_(static_cast<char*>(gradient)),
        row_bytes_(C_ * type.bytes),
        frame_bytes_(stride * type.bytes),
        is_streamed_(sequence.frames * frame_bytes_ > cached_bytes) {}

  // Where frame t's row is computed: in place, or in `memory` (C) if the row is
  // then converted or streamed. write(t) must follow.
  Real* row(int t, Real* memory) const {
    return type_.is_real && !is_streamed_ ? in_place(t) : memory;
  }

  // row[c] = f(frame t's scores[c]), by blocks.
  template <typename F>
  void for_each_block(int t, Real* row, const Scores<Real>& scores, F f) const {
    StoredFrame next = scores.stored(t + 1);
    const char* next_row = address(smaller(t + 1, scores.T - 1));
    MLX_CTC_ISA::for_each_block(
        scores.frame(t), C_, [&](Block<Real> x, int64_t c, int64_t count) {
          next.fetch(c);
          if (!is_streamed_) {
            __builtin_prefetch(next_row + c * type_.bytes, 1);
          }
          store_block(row + c, f(x), count);
        });
  }

  // Brings what row(t) was filled with to its place, times `factor`.
  void write(int t, Real* row, Real factor) const {
    if (factor != 1) {
      multiply(row, factor, row);
    }
    if (!type_.is_real) {
      type_.write(row, C_, address(t));
    } else if (is_streamed_) {
      stream_row(in_place(t), row, C_);
    }
  }

  // Fetches the place of a row that copy() writes later. In a step of training
  // it is in no cache. Inline, because GCC removes calls of a function that
  // does nothing but prefetch.
  [[gnu::always_inline]] void fetch(int t) const {
    const char* row = address(t);
    for (int64_t i = 0; i < row_bytes_; i += cache_line) {
      __builtin_prefetch(row + i, 1, 2);
    }
    __builtin_prefetch(row + row_bytes_ - 1, 1, 2);
  }

  // Writes a row that is still in a cache, times `factor`.
  void copy(int t, Real* row, Real factor) const {
    if (type_.is_real) {
      multiply(row, factor, in_place(t));
    } else {
      multiply(row, factor, row);
      type_.write(row, C_, address(t));
    }
  }

  // After the last row.
  void finish() const {
    finish_streaming();
  }

 private:
  void multiply(const Real* row, Real factor, Real* out) const {
    MLX_CTC_ISA::for_each_block(
        row, C_, [&](Block<Real> x, int64_t c, int64_t count) {
          store_block(out + c, x * factor, count);
        });
  }

  // A larger gradient is in no cache when it is used. Streamed stores spare the
  // reading of each line before it is written.
  static constexpr int64_t cached_bytes = 32 << 20;

  char* address(int64_t t) const {
    return begin_ + t * frame_bytes_;
  }

  Real* in_place(int t) const {
    return reinterpret_cast<Real*>(address(t));
  }

  const ElementType<Real>& type_;
  const int64_t C_;
  char* const begin_;
  const int64_t row_bytes_;
  const int64_t frame_bytes_;
  const bool is_streamed_;
};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
