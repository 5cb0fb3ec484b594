// The labels of a target in the order of their classes. The labels of a class
// have consecutive ranks, in the order of the target, so that the gradient can
// sum their gammas without a search and in a fixed order.
//
// Targets longer than PART labels are divided into parts, each with its own
// ranks.

// At least one part.
METAL_FUNC int parts_of(int S, int part) {
  return metal::max((S + part - 1) / part, 1);
}

// The same where CAPACITY is less than PART only if no target of the batch has
// more than CAPACITY labels: then the number is the constant 1, and the
// compiler removes a loop over the parts.
template <int PART, int CAPACITY>
METAL_FUNC int parts_of(int S) {
  return CAPACITY < PART ? 1 : parts_of(S, PART);
}

// The labels of one part: `begin` to `end` - 1.
struct Part {
  int begin;
  int end;
};

METAL_FUNC Part part_of(int p, int part, int S_n) {
  return Part{p * part, metal::min(p * part + part, S_n)};
}

// The ranks of one class's labels in one part.
struct Ranks {
  int begin;
  int end;
};

METAL_FUNC uint pack_ranks(int begin, int count) {
  return (uint(begin) << 16) | uint(count);
}

METAL_FUNC Ranks unpack_ranks(uint packed) {
  const int begin = int(packed >> 16);
  return Ranks{begin, begin + int(packed & 0xffff)};
}
