// The check of one sequence's lengths and labels. It comes before any of them
// is used as an index.

#include "pointers.h"
#include "sequence.h"
#include "threads.h"

// Whether `value` is true in all threads of the threadgroup.
METAL_FUNC bool all_of_threadgroup(
    bool value,
    Shared<int> flags, // (simdgroups)
    Threads self) {
  value = metal::simd_all(value);
  if (self.lane == 0) {
    flags[self.simdgroup] = value ? 1 : 0;
  }
  metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
  for (int i = 0; i < self.simdgroups(); ++i) {
    value = value && flags[i] != 0;
  }
  return value;
}

// Checks the lengths of a sequence of at most T frames and S labels, and its
// labels, which are in 0 .. C - 1 and other than `excluded_class`; -1 excludes
// none. A sequence with one out of range becomes an empty one.
template <typename Sequence>
METAL_FUNC bool check_range(
    thread Sequence& sequence,
    int T,
    int S,
    int C,
    int excluded_class,
    Shared<int> flags, // (simdgroups)
    Threads self) {
  const int T_n = sequence.T_n;
  const int S_n = sequence.S_n;
  bool in_range = T_n >= 0 && T_n <= T && S_n >= 0 && S_n <= S;
  if (in_range) {
    for (int i = self.index; i < S_n; i += self.count) {
      const int y = sequence.class_of_label(i);
      in_range = in_range && y >= 0 && y < C && y != excluded_class;
    }
  }
  in_range = all_of_threadgroup(in_range, flags, self);
  sequence.T_n = in_range ? T_n : 0;
  sequence.S_n = in_range ? S_n : 0;
  return in_range;
}
