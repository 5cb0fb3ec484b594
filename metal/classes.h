// Which of a target's labels are of a class: a range of their ranks in the
// order of classes, for each part of a long target.

// So many parts, one at least.
METAL_FUNC int parts_of(int S, int part) {
  return metal::max((S + part - 1) / part, 1);
}

struct Ranks {
  int begin;
  int end;
};

// The form in memory: where they begin, and how many they are.
METAL_FUNC uint pack_ranks(int begin, int count) {
  return (uint(begin) << 16) | uint(count);
}

METAL_FUNC Ranks ranks_of(uint packed) {
  const int begin = int(packed >> 16);
  return Ranks{begin, begin + int(packed & 0xffff)};
}
