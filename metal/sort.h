// Sorts the labels of a target by class (classes.h), for the gradient.

#include "classes.h"
#include "place.h"
#include "pointers.h"
#include "tables.h"
#include "threads.h"

// Called by all threads of a threadgroup. A label's rank is the number of
// labels of its part that come before it, which its thread counts.
template <typename Targets>
METAL_FUNC void sort_by_class(
    Targets target, // (S_n)
    int64_t stride,
    int S_n,
    int C,
    int part, // labels of a part
    int parts,
    Device<uint> classes, // (parts, max(C, 8)) ranks of each class
    Device<uint64_t> labels, // (S) a Label each
    Device<uint16_t>
        label_of_rank, // (S) index in its part of the label of each rank
    Threads self) {
  const int64_t all_classes = int64_t(parts) * size_of_classes(C);
  for (int64_t i = self.index; i < all_classes; i += self.count) {
    classes[i] = 0;
  }
  metal::threadgroup_barrier(metal::mem_flags::mem_device);
  for (int i = self.index; i < S_n; i += self.count) {
    const int y = target[i * stride];
    const int begin = i / part * part;
    const int end = metal::min(begin + part, S_n);
    int less = 0;
    int same = 0;
    int same_before = 0;
    for (int other = begin; other < end; ++other) {
      const int other_y = target[other * stride];
      less += other_y < y ? 1 : 0;
      same += other_y == y ? 1 : 0;
      same_before += other_y == y && other < i ? 1 : 0;
    }
    const int rank = less + same_before;
    labels[i] = pack_label(
        Label{
            y,
            rank,
            may_skip_blank(target, stride, S_n, i - 1, i),
            may_skip_blank(target, stride, S_n, i, i + 1)});
    label_of_rank[begin + rank] = uint16_t(i - begin);
    if (same_before == 0) {
      classes[int64_t(i / part) * size_of_classes(C) + y] =
          pack_ranks(less, same);
    }
  }
}
