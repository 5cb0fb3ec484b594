// Sorts the labels of a target by class (classes.h), for the gradient.

#include "classes.h"
#include "place.h"
#include "pointers.h"
#include "tables.h"
#include "threads.h"

// A label among those of its part, in the order of classes.
struct RankInPart {
  int less; // labels of lesser classes: the first rank of its class
  int same; // labels of its class
  int same_before; // those of them that come before it in the target

  METAL_FUNC int rank() const {
    return less + same_before;
  }
};

template <typename Sequence>
METAL_FUNC RankInPart rank_in_part(
    thread const Sequence& sequence,
    int i,
    int y, // its class
    int begin, // the part
    int end) {
  RankInPart found = {0, 0, 0};
  for (int other = begin; other < end; ++other) {
    const int other_y = sequence.class_of_label(other);
    found.less += other_y < y ? 1 : 0;
    found.same += other_y == y ? 1 : 0;
    found.same_before += other_y == y && other < i ? 1 : 0;
  }
  return found;
}

// Called by all threads of a threadgroup, for the n-th sequence: `classes` gets
// the ranks of each class's labels, `labels` a Label each, and `label_of_rank`
// the index in its part of the label that has a rank. The thread of a label
// counts the labels that come before it.
template <int PART, typename Sequence>
METAL_FUNC void sort_by_class(
    thread const Sequence& sequence,
    int n,
    int C,
    int S,
    Device<uint> classes, // (N, P, max(C, 8))
    Device<uint64_t> labels, // (N, max(S, 8))
    Device<uint16_t> label_of_rank, // (N, max(S, 8))
    Threads self) {
  const int S_n = sequence.S_n;
  const int parts = parts_of(S, PART);
  classes += int64_t(n) * parts * size_of_classes(C);
  labels += int64_t(n) * size_of_labels(S);
  label_of_rank += int64_t(n) * size_of_labels(S);
  const int64_t all_classes = int64_t(parts) * size_of_classes(C);
  for (int64_t i = self.index; i < all_classes; i += self.count) {
    classes[i] = 0;
  }
  metal::threadgroup_barrier(metal::mem_flags::mem_device);
  for (int i = self.index; i < S_n; i += self.count) {
    const int y = sequence.class_of_label(i);
    const int begin = i / PART * PART;
    const int end = metal::min(begin + PART, S_n);
    const RankInPart found = rank_in_part(sequence, i, y, begin, end);
    labels[i] = pack_label(
        Label{
            y,
            found.rank(),
            may_skip_blank(sequence, i - 1, i),
            may_skip_blank(sequence, i, i + 1)});
    label_of_rank[begin + found.rank()] = uint16_t(i - begin);
    if (found.same_before == 0) {
      classes[int64_t(i / PART) * size_of_classes(C) + y] =
          pack_ranks(found.less, found.same);
    }
  }
}
