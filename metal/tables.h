// Layout of the tables that the scan writes and the gradient and the posteriors
// read. Dimensions: N sequences, B segments of `frames` frames, V windows, S
// labels, P parts, C classes.
//
//   z            (N)
//   checkpoints  (N, B, 2, max(S, 1) + 1, 2)
//   edges        (N, B, V + 1, 3, 2, frames)
//   classes      (N, P, max(C, 8))
//   labels       (N, max(S, 8))
//   label_of_rank       (N, max(S, 8))
//
// The minima make each array but z at least 8 elements long. MLX then passes it
// in device memory whatever the sizes of the batch, so that it has one type.

#include "extended.h"
#include "pointers.h"

METAL_FUNC int size_of_checkpoint(int S) {
  return 2 * (metal::max(S, 1) + 1);
}

METAL_FUNC int size_of_edges(int V, int frames) {
  return (V + 1) * 3 * 2 * frames;
}

METAL_FUNC int size_of_classes(int C) {
  return metal::max(C, 8);
}

METAL_FUNC int size_of_labels(int S) {
  return metal::max(S, 8);
}

// The labels of one sequence in the order of their classes (classes.h).
struct ClassTables {
  int C;
  Device<const uint> classes; // (P, max(C, 8))
  Device<const uint64_t> labels; // (S)
  Device<const uint16_t> label_of_rank; // (S)

  // The ranks of each class's labels in the p-th part.
  METAL_FUNC Device<const uint> classes_of_part(int p) const {
    return classes + int64_t(p) * size_of_classes(C);
  }
};

// The class tables of the n-th sequence.
METAL_FUNC ClassTables class_tables_of(
    int n,
    int P,
    int C,
    int S,
    Device<const uint> classes, // (N, P, max(C, 8))
    Device<const uint64_t> labels, // (N, max(S, 8))
    Device<const uint16_t> label_of_rank) { // (N, max(S, 8))
  const int64_t first_label = int64_t(n) * size_of_labels(S);
  return ClassTables{
      C,
      classes + int64_t(n) * P * size_of_classes(C),
      labels + first_label,
      label_of_rank + first_label};
}

// checkpoints hold alpha (0) after a segment's last frame and beta_p (1) at its
// first frame, of the blank and the label of each pair, as floats with levels
// (Levelled, floats.h). The last blank is entry S.

// edges hold what enters each window from its neighbours before each frame of
// the segment, in the order of the scan, as floats (0) and their levels (1):
constant constexpr int alpha_of_label_before = 0;
constant constexpr int beta_p_of_next_blank = 1;
constant constexpr int beta_p_of_next_label = 2;

METAL_FUNC int edge_offset(int window, int row, int frames) {
  return (window * 3 + row) * 2 * frames;
}

// z: the total probability. A mantissa of NaN marks an invalid sequence: with
// exponent 0, one with invalid scores; with exponent 1, one whose lengths or
// labels are out of range.
METAL_FUNC Extended invalid_z(bool in_range) {
  return Extended{metal::numeric_limits<float>::quiet_NaN(), in_range ? 0 : 1};
}

METAL_FUNC bool is_invalid(Extended z) {
  return metal::isnan(z.m);
}

METAL_FUNC bool is_out_of_range(Extended z) {
  return is_invalid(z) && z.e != 0;
}
