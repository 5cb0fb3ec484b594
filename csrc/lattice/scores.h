// The scores of one sequence, (frames, classes), read as float, or as double
// where they are double. The type they are stored in ends here: the code that
// uses Scores is compiled for float and for double only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "lattice/element.h"
#include "lattice/sequence.h"
#include "lattice/workspace.h"

// A short loop over scattered memory, which does not vectorise.
#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll_count(8)")
#else
#define UNROLLED _Pragma("GCC unroll 8")
#endif

namespace mlx_ctc::cpu::MLX_CTC_ISA {

// Fetches scores of a later frame into the second cache: a frame of many
// classes would push itself out of the first. The processor does not fetch them
// by itself, because the other sequences' scores lie between two frames.
inline void fetch_later(const void* x) {
  constexpr int second_cache = 2;
  __builtin_prefetch(x, 0, second_cache);
}

// Reads and writes the elements of one input type. `Real`, float or double, is
// the type that computes for it.
template <typename Real>
struct ElementType {
  int64_t bytes;
  bool is_real; // elements are Real, and can be used in place

  // out[i] = x[i * stride] for i in [0, count)
  void (*read)(const void* x, int64_t stride, int64_t count, Real* out);

  // out[i] = x[index[i] * stride] for i in [0, count). `later`, if not null, is
  // the address of another x that is fetched into the caches.
  void (*gather)(
      const void* x,
      const void* later,
      int64_t stride,
      const int32_t* index,
      int64_t count,
      Real* out);

  // out[i] = x[i] for i in [0, count)
  void (*write)(const Real* x, int64_t count, void* out);
};

template <typename In, typename Real>
void read_elements(const void* from, int64_t stride, int64_t count, Real* out) {
  const In* x = static_cast<const In*>(from);
  if (stride == 1) {
    for (int64_t i = 0; i < count; ++i) {
      out[i] = number(x[i]);
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      out[i] = number(x[i * stride]);
    }
  }
}

template <typename In, typename Real>
void gather_elements(
    const void* from,
    const void* later,
    int64_t stride,
    const int32_t* index,
    int64_t count,
    Real* out) {
  const In* x = static_cast<const In*>(from);
  if (later) {
    UNROLLED
    for (int64_t i = 0; i < count; ++i) {
      int64_t offset = index[i] * stride;
      fetch_later(static_cast<const In*>(later) + offset);
      out[i] = number(x[offset]);
    }
  } else {
    UNROLLED
    for (int64_t i = 0; i < count; ++i) {
      out[i] = number(x[index[i] * stride]);
    }
  }
}

template <typename In, typename Real>
void write_elements(const Real* x, int64_t count, void* to) {
  In* out = static_cast<In*>(to);
  for (int64_t i = 0; i < count; ++i) {
    assign(out[i], x[i]);
  }
}

template <typename In>
inline constexpr ElementType<typename Computing<In>::Real> element_type = {
    sizeof(In),
    std::is_same_v<In, typename Computing<In>::Real>,
    read_elements<In>,
    gather_elements<In>,
    write_elements<In>};

// A frame's scores where they are stored.
struct StoredFrame {
  const char* begin;
  int64_t element_bytes;

  void fetch(int64_t i) const {
    fetch_later(begin + i * element_bytes);
  }
};

template <typename Real>
class Scores {
 public:
  Scores(
      const Sequence& sequence,
      const ElementType<Real>& type,
      Workspace& workspace)
      : T(sequence.frames),
        C(sequence.classes),
        type(type),
        class_stride(sequence.class_stride),
        begin_(static_cast<const char*>(sequence.log_probs)),
        frame_bytes_(sequence.frame_stride * type.bytes),
        row_(workspace.take<Real>(C)) {}

  // Frame t, or the last frame if t is past it.
  StoredFrame stored(int t) const {
    return {frame_begin(t < T ? t : T - 1), type.bytes};
  }

  Real at(int t, int32_t c) const {
    if (type.is_real) {
      return reinterpret_cast<const Real*>(frame_begin(t))[c * class_stride];
    }
    Real x;
    type.gather(frame_begin(t), nullptr, class_stride, &c, 1, &x);
    return x;
  }

  // The scores of `count` classes in frame t.
  void gather(int t, const int32_t* classes, int64_t count, Real* out) const {
    type.gather(frame_begin(t), nullptr, class_stride, classes, count, out);
  }

  // The same, and prefetches the scores of those classes in frame `later`.
  void gather(
      int t,
      int later,
      const int32_t* classes,
      int64_t count,
      Real* out) const {
    const void* fetched = stored(later).begin;
    type.gather(frame_begin(t), fetched, class_stride, classes, count, out);
  }

  // All scores of frame t side by side: in place where they are stored so, else
  // in row().
  const Real* frame(int t) const {
    const char* x = frame_begin(t);
    if (type.is_real && class_stride == 1) {
      return reinterpret_cast<const Real*>(x);
    }
    type.read(x, class_stride, C, row_);
    return row_;
  }

  // Memory for one frame, (C).
  Real* row() const {
    return row_;
  }

  const int T;
  const int64_t C;
  const ElementType<Real>& type;
  const int64_t class_stride; // in elements

 private:
  const char* frame_begin(int t) const {
    return begin_ + t * frame_bytes_;
  }

  const char* const begin_;
  const int64_t frame_bytes_;
  Real* const row_; // (C)
};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
