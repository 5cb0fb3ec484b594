// Rows of the lattice's states, in extended-range numbers, and the band of them
// that alignments pass in each frame.
//
// A target of S labels makes a lattice of two rows: label[i], and blank[i], the
// blank after it (i = 0..S-1). The blank before all labels is blank[-1]. Loops
// run over i, for both rows at once, and vectorise.
#pragma once

#include <cstdint>

#include "lattice/workspace.h"
#include "simd/extended.h"

// The rows that the next loop reads and writes do not overlap.
#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace mlx_ctc::cpu::MLX_CTC_ISA {

// Loops run over whole groups of states, without remainders. What a row holds
// past the last label is zero, and stays zero.
constexpr int64_t group_size = 16;

constexpr int64_t round_down(int64_t i) {
  return i & -group_size;
}

constexpr int64_t round_up(int64_t i) {
  return round_down(i + group_size - 1);
}

// A row has a group before index 0 and one after the last, for the neighbours
// of the states at its ends.
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

// Rows of one length, one after the other.
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

// Z: an alignment ends in the last label or the blank after it.
template <typename Real>
Extended<Real> z_of(ExtendedStates<Real> alpha, int64_t target_length) {
  int64_t last = target_length - 1;
  return normalised(alpha.blank[last] + alpha.label[last]);
}

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
