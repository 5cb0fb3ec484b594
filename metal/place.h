// Which pair of states a lane has, and which steps lead into and out of it.
//
// A pair is a blank and the label after it. The last blank of a target has no
// label after it and no lane: see last_blank.h.

#include "frames.h"
#include "recursion.h"
#include "sequence.h"

// Whether a step between two states is allowed, as a term of exponents:
// `allowed` is the bias of a float's exponent; `forbidden` makes the product
// zero.
constant constexpr int allowed = 127;
constant constexpr int forbidden = 2 * zero_exponent;

METAL_FUNC int step_if(bool is_allowed) {
  return is_allowed ? allowed : forbidden;
}

struct Place {
  bool has_states;
  int blank; // index among the target's S_n + 1 blanks
  int label; // index among the target's labels
  int y; // the label's class; the blank's in a lane without states
  // Each `allowed` or `forbidden`:
  int blank_to_label;
  int label_before_to_blank;
  int label_before_to_label; // skips the blank between them
  int label_to_next_label;
};

// The place of a lane that has the given label in the scan of alpha (direction
// 1) or of beta_p (direction -1). In the reversed target of beta_p a pair is a
// blank and the label before it, and the blank without a lane is blank 0.
template <typename Sequence>
METAL_FUNC Place
place_of(thread const Sequence& sequence, int label, int direction) {
  const int S_n = sequence.S_n;
  const bool has_states = label >= 0 && label < S_n;
  const int before = label - direction;
  const int after = label + direction;
  const bool has_before = has_states && before >= 0 && before < S_n;
  return Place{
      has_states,
      direction > 0 ? label : label + 1,
      label,
      has_states ? sequence.class_of_label(label) : sequence.blank,
      step_if(has_states),
      step_if(has_before),
      step_if(may_skip_blank(sequence, before, label)),
      step_if(may_skip_blank(sequence, label, after))};
}

// What the gradient needs of one label, packed into a word of `labels`.
struct Label {
  int y; // its class
  int rank; // its position in the order of classes, within its part
  bool skips_from_before; // whether a path may skip the blank before it
  bool skips_to_next; // and the blank after it
};

METAL_FUNC uint64_t pack_label(Label a) {
  const uint rest = uint(a.rank) | (a.skips_from_before ? 1u << 16 : 0u) |
      (a.skips_to_next ? 1u << 17 : 0u);
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

// The target's i-th label. A lane without a label gets the blank's class, and
// the rank `no_rank`.
template <typename Labels>
METAL_FUNC Label
label_of(Labels labels, int S_n, int class_of_blank, int i, int no_rank) {
  if (i < S_n) {
    return unpack_label(labels[i]);
  }
  return Label{class_of_blank, no_rank, false, false};
}

// The place of a lane that has the i-th label, in a target read forward.
METAL_FUNC Place place_of_label(Label label, int S_n, int i) {
  const bool has_states = i < S_n;
  return Place{
      has_states,
      i,
      i,
      label.y,
      step_if(has_states),
      step_if(has_states && i > 0),
      step_if(label.skips_from_before),
      step_if(label.skips_to_next)};
}
