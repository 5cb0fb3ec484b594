// The labels of a target in the order of their classes, so that those of a
// class lie side by side and the gradient adds them up without a search. Long
// targets in parts, each on its own.

#include "classes.h"
#include "place.h"

// By all threads of a threadgroup. labels[i] becomes what there is to know of
// the i-th label; places[r] the place in its part of the label with rank r;
// classes[c] the ranks of class c.
template <typename Target>
METAL_FUNC void sort_by_class(
    Target target, // (S_n)
    int64_t stride,
    int S_n,
    int C,
    int part, // labels
    int64_t listed, // all parts' classes
    device uint* classes, // (parts, C)
    device uint64_t* labels, // (S)
    device uint16_t* places, // (S)
    int thread_index,
    int threads) {
  for (int64_t i = thread_index; i < listed; i += threads) {
    classes[i] = 0;
  }
  metal::threadgroup_barrier(metal::mem_flags::mem_device);
  for (int i = thread_index; i < S_n; i += threads) {
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
            may_jump(target, stride, S_n, i - 1, i),
            may_jump(target, stride, S_n, i, i + 1)});
    places[begin + rank] = uint16_t(i - begin);
    if (same_before == 0) {
      classes[int64_t(i / part) * C + y] = pack_ranks(less, same);
    }
  }
}
