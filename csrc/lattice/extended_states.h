// The states of one frame as numbers of extended range.
//
// A target of S labels has 2 S + 1 states. They are kept as two rows: label[i],
// and blank[i], the blank after label i (i = 0..S-1). The blank before all
// labels is blank[-1]. A loop over i handles label[i] and blank[i] together and
// vectorises.
#pragma once

#include <cstdint>

#include "lattice/workspace.h"
#include "simd/extended.h"

// Tells the compiler that the rows read and written in the next loop do not
// overlap.
#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace mlx_ctc::cpu::MLX_CTC_ISA {

// Loops cover whole groups of states and have no remainder. The states past the
// last label are 0 and stay 0.
constexpr int64_t group_size = 16;

constexpr int64_t round_down(int64_t i) {
  return i & -group_size;
}

constexpr int64_t round_up(int64_t i) {
  return round_down(i + group_size - 1);
}

// The length of a row: loops read the neighbours of the first and the last
// state, so that a row has one more group before index 0 and one at its end.
constexpr int64_t row_pitch(int64_t target_length) {
  return group_size + round_up(target_length) + group_size;
}

template <typename Real>
struct ExtendedRow {
  Real* m;
  Int<Real>* e;

  Extended<Real> operator[](int64_t i) const {
    return {m[i], e[i]};
  }

  void set(int64_t i, Extended<Real> a) const {
    m[i] = a.m;
    e[i] = a.e;
  }

  void clear(int64_t begin, int64_t end) const {
    for (int64_t i = begin; i < end; ++i) {
      set(i, zero<Real>());
    }
  }
};

// Rows of the same length, one after the other.
template <typename Real>
struct ExtendedRows {
  Real* m;
  Int<Real>* e;
  int64_t pitch;

  ExtendedRow<Real> operator[](int64_t j) const {
    return {m + j * pitch + group_size, e + j * pitch + group_size};
  }
};

template <typename Real>
struct ExtendedStates {
  ExtendedRow<Real> blank;
  ExtendedRow<Real> label;

  void clear(int64_t begin, int64_t end) const {
    blank.clear(begin, end);
    label.clear(begin, end);
  }
};

template <typename Real>
ExtendedRows<Real>
take_rows(Workspace& workspace, int64_t count, int64_t pitch) {
  auto* m = workspace.take<Real>(count * pitch);
  return {m, workspace.take<Int<Real>>(count * pitch), pitch};
}

template <typename Real>
ExtendedRow<Real> take_row(Workspace& workspace, int64_t pitch) {
  return take_rows<Real>(workspace, 1, pitch)[0];
}

template <typename Real>
ExtendedStates<Real> take_states(Workspace& workspace, int64_t pitch) {
  auto blank = take_row<Real>(workspace, pitch);
  return {blank, take_row<Real>(workspace, pitch)};
}

// z from alpha of the last frame, equation 8: an alignment ends in the last
// label or in the blank after it.
template <typename Real>
Extended<Real> z_of(ExtendedStates<Real> alpha, int64_t target_length) {
  int64_t last = target_length - 1;
  return normalised(alpha.blank[last] + alpha.label[last]);
}

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
