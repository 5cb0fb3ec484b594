// The check of one sequence's lengths and labels. It comes before any of them
// is used as an index.

#include "pointers.h"
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

struct Lengths {
  int T_n; // 0 if out of range
  int S_n; // 0 if out of range
  bool in_range;
};

// Labels are in 0 .. C - 1, and other than `excluded_class`; -1 excludes none.
template <typename Targets>
METAL_FUNC Lengths checked_lengths(
    int T_n,
    int S_n,
    int T,
    int S,
    int C,
    Targets target, // (S)
    int64_t stride,
    int excluded_class,
    Shared<int> flags, // (simdgroups)
    Threads self) {
  bool in_range = T_n >= 0 && T_n <= T && S_n >= 0 && S_n <= S;
  if (in_range) {
    for (int i = self.index; i < S_n; i += self.count) {
      const int y = target[i * stride];
      in_range = in_range && y >= 0 && y < C && y != excluded_class;
    }
  }
  in_range = all_of_threadgroup(in_range, flags, self);
  return Lengths{in_range ? T_n : 0, in_range ? S_n : 0, in_range};
}
