// A lane's place in the lattice: which pair of states it has, a blank and the
// label after it, and which steps lead into them. The last blank is in no pair:
// last_blank.h.

#include "recursion.h"

// 32 pairs each, the last one fewer.
METAL_FUNC int windows_of(int S_n) {
  return (S_n + 31) / 32;
}

// Of a step from one state to another: forbidden, its probability has an
// exponent that makes it 0. (Allowed, it is a float's bias.)
constant constexpr int allowed = 127;
constant constexpr int forbidden = 2 * zero_exponent;

struct Place {
  bool has_states;
  int blank; // which of the target's blanks
  int label; // and labels
  int y; // the label's class; the blank's where there is none
  int into_label; // from the blank to the label
  int into_blank; // from the label before
  int jump; // from the label before to the label
  int jump_on; // from the label to the one behind
};

METAL_FUNC int step_if(bool is_allowed) {
  return is_allowed ? allowed : forbidden;
}

// Whether a path may pass from one label straight to another, over the blank
// between them.
template <typename Target>
METAL_FUNC bool
may_jump(Target target, int64_t stride, int S_n, int from, int to) {
  const bool are_labels = from >= 0 && from < S_n && to >= 0 && to < S_n;
  return are_labels && target[from * stride] != target[to * stride];
}

// With paths read from the end, direction -1, a pair is a blank and the label
// before it, and what is in no pair the first blank.
template <typename Target>
METAL_FUNC Place place_of(
    Target target,
    int64_t stride,
    int S_n,
    int class_of_blank,
    int label,
    int direction) {
  const bool has_states = label >= 0 && label < S_n;
  const int before = label - direction;
  const bool has_before = has_states && before >= 0 && before < S_n;
  return Place{
      has_states,
      direction > 0 ? label : label + 1,
      label,
      has_states ? int(target[label * stride]) : class_of_blank,
      step_if(has_states),
      step_if(has_before),
      step_if(may_jump(target, stride, S_n, before, label)),
      step_if(may_jump(target, stride, S_n, label, label + direction))};
}

// What the gradient needs to know of a label, in one word of memory: its class,
// its rank in the order of classes, and the jumps to it and from it.
struct Label {
  int y;
  int rank;
  bool jump;
  bool jump_on;
};

METAL_FUNC uint64_t pack_label(Label a) {
  const uint rest =
      uint(a.rank) | (a.jump ? 1u << 16 : 0u) | (a.jump_on ? 1u << 17 : 0u);
  return uint64_t(uint(a.y)) | (uint64_t(rest) << 32);
}

METAL_FUNC Label unpack_label(uint64_t packed) {
  const uint rest = uint(packed >> 32);
  return Label{
      int(uint(packed)),
      int(rest & 0xffff),
      (rest & (1u << 16)) != 0,
      (rest & (1u << 17)) != 0};
}

// The i-th of a target's labels; for a lane that has none the blank's class,
// and a rank that no label has.
template <typename Labels>
METAL_FUNC Label
label_of(Labels labels, int S_n, int class_of_blank, int i, int no_rank) {
  if (i < S_n) {
    return unpack_label(labels[i]);
  }
  return Label{class_of_blank, no_rank, false, false};
}

// Its place, with paths read forward.
METAL_FUNC Place place_of_label(Label label, int S_n, int i) {
  const bool has_states = i < S_n;
  return Place{
      has_states,
      i,
      i,
      label.y,
      step_if(has_states),
      step_if(has_states && i > 0),
      step_if(label.jump),
      step_if(label.jump_on)};
}
