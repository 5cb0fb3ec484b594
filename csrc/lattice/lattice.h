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
constexpr int64_t lanes = 16;

constexpr int64_t round_down(int64_t i) {
  return i & -lanes;
}

constexpr int64_t round_up(int64_t i) {
  return round_down(i + lanes - 1);
}

// A row has a group before index 0 and one after the last, for the neighbours
// of the states at its ends.
constexpr int64_t row_pitch(int64_t target_length) {
  return lanes + round_up(target_length) + lanes;
}

template <typename Real>
struct Row {
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
struct Rows {
  Real* m;
  Int<Real>* e;
  int64_t pitch;

  Row<Real> operator[](int64_t j) const {
    return {m + j * pitch + lanes, e + j * pitch + lanes};
  }
};

template <typename Real>
struct States {
  Row<Real> blank;
  Row<Real> label;

  void clear(int64_t begin, int64_t end) const {
    blank.clear(begin, end);
    label.clear(begin, end);
  }
};

// The labels, and blanks after them, that an alignment can be at in one frame:
// each frame adds at most one label, after the start and before the end. The
// loops take whole groups around them; whatever else is in those has no path to
// the start, or none to the end, and neither has what they lead to.
struct Band {
  int64_t begin;
  int64_t end;
  int64_t row_end; // of the whole groups that hold all labels

  int64_t first_group() const {
    return round_down(begin);
  }

  int64_t last_group() const {
    return round_up(end);
  }
};

template <typename Real>
Rows<Real> take_rows(Workspace& workspace, int64_t count, int64_t pitch) {
  auto* m = workspace.take<Real>(count * pitch);
  return {m, workspace.take<Int<Real>>(count * pitch), pitch};
}

template <typename Real>
Row<Real> take_row(Workspace& workspace, int64_t pitch) {
  return take_rows<Real>(workspace, 1, pitch)[0];
}

template <typename Real>
States<Real> take_states(Workspace& workspace, int64_t pitch) {
  auto blank = take_row<Real>(workspace, pitch);
  return {blank, take_row<Real>(workspace, pitch)};
}

// Z: an alignment ends in the last label or the blank after it.
template <typename Real>
Extended<Real> evidence(States<Real> alpha, int64_t target_length) {
  int64_t last = target_length - 1;
  return normalised(alpha.blank[last] + alpha.label[last]);
}

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
