// A lane's place in the lattice: which states it has, and which steps lead into
// them.

struct Has {
  bool blank;
  bool label;
};

// Of a step from one state to another: forbidden, its probability has an
// exponent that makes it 0. (Allowed, it is a float's bias.)
constant constexpr int allowed = 127;
constant constexpr int forbidden = 2 * zero_exponent;

struct Place {
  int blank; // which of the target's blanks
  int label; // and labels
  int y; // the label's class; the blank's where there is no label
  Has has;
  int into_label; // from the blank to the label
  int into_blank; // from the label before
  int jump; // from the label before to the label
  int jump_on; // from the label to the one behind
};

// From one label straight to another, over the blank between them.
template <typename Target>
METAL_FUNC int
jump_between(Target target, int64_t stride, int S_n, int from, int to) {
  const bool are_labels = from >= 0 && from < S_n && to >= 0 && to < S_n;
  return are_labels && target[from * stride] != target[to * stride] ? allowed
                                                                    : forbidden;
}

// A pair is a blank and the label after it; or, with paths read from the end,
// direction -1, the label before it.
template <typename Target>
METAL_FUNC Place place_of(
    Target target,
    int64_t stride,
    int S_n,
    int class_of_blank,
    int label,
    int direction) {
  const int blank = direction > 0 ? label : label + 1;
  const int before = label - direction;
  const Has has = Has{blank >= 0 && blank <= S_n, label >= 0 && label < S_n};
  const bool has_before = has.blank && before >= 0 && before < S_n;
  return Place{
      blank,
      label,
      has.label ? int(target[label * stride]) : class_of_blank,
      has,
      has.label ? allowed : forbidden,
      has_before ? allowed : forbidden,
      jump_between(target, stride, S_n, before, label),
      jump_between(target, stride, S_n, label, label + direction)};
}
