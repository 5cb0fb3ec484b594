// The recursion of Graves et al. 2006, section 4.1, one lane for a pair of
// states. Pair i of alpha is (the blank before label i, label i).
//
// Read from the end, a target is another target, so that the sum over the
// paths' ends, w(t, s) = beta-hat(t, s) p(t, s), obeys the same recursion as
// alpha with frames and states in reverse. beta-hat(t, s) leaves out frame t's
// own emission: the beta of eq. 9 without a division in gamma.

struct Pair {
  Extended blank;
  Extended label;
};

// What lies behind the last label, and in lanes without a state.
METAL_FUNC Pair no_states() {
  return Pair{extended_zero(), extended_zero()};
}

// The sums over the states that lead into a pair (eq. 6 and 7, the inner
// terms): a blank follows itself and the label before it; a label follows
// itself, its blank, and the label before it unless the two are equal.
// `jump` is 0, or zero_exponent to forbid that last step.
METAL_FUNC Pair arrive(Pair before, Extended label_before, int jump) {
  Extended jumping = Extended{label_before.m, label_before.e + jump};
  return Pair{
      sum(before.blank, label_before),
      sum(before.label, before.blank, jumping)};
}

// beta-hat: the same sums over the states that a pair leads to, `behind` being
// the pair of the next label.
METAL_FUNC Pair leave(Pair after, Pair behind, int jump) {
  Extended jumping = Extended{behind.label.m, behind.label.e + jump};
  return Pair{
      sum(after.blank, after.label),
      sum(after.label, behind.blank, jumping)};
}

METAL_FUNC Pair emit(Pair arrived, Extended p_blank, Extended p_label) {
  return Pair{
      product(arrived.blank, p_blank), product(arrived.label, p_label)};
}

METAL_FUNC Pair normalise(Pair a) {
  return Pair{normalise(a.blank), normalise(a.label)};
}

METAL_FUNC Pair choose(bool first, Pair a, Pair b) {
  a.blank.m = first ? a.blank.m : b.blank.m;
  a.blank.e = first ? a.blank.e : b.blank.e;
  a.label.m = first ? a.label.m : b.label.m;
  a.label.e = first ? a.label.e : b.label.e;
  return a;
}

// exp(x - greatest), with what rounding takes from the difference.
METAL_FUNC Extended probability(float x, float greatest) {
  float difference = x - greatest;
  float back = difference - x;
  float rest = (x - (difference - back)) - (greatest + back);
  return extended_exp(difference, rest);
}

METAL_FUNC Extended shuffle_up(Extended a) {
  return Extended{metal::simd_shuffle_up(a.m, 1), metal::simd_shuffle_up(a.e, 1)};
}

METAL_FUNC Extended shuffle_down(Extended a) {
  return Extended{
      metal::simd_shuffle_down(a.m, 1), metal::simd_shuffle_down(a.e, 1)};
}

METAL_FUNC Extended broadcast(Extended a, int lane) {
  return Extended{
      metal::simd_broadcast(a.m, lane), metal::simd_broadcast(a.e, lane)};
}

// A sum over the lanes in a fixed order, so that every run gives the same bits.
METAL_FUNC float sum_of_lanes(float x) {
  for (int step = 16; step > 0; step /= 2) {
    x += metal::simd_shuffle_xor(x, step);
  }
  return x;
}
