// The recursion of Graves et al. 2006, section 4.1, one lane for a pair of
// states. Pair i of alpha is (the blank before label i, label i).
//
// Read from the end, a target is another target, so that the sum over the
// paths' ends, w(t, s) = beta-hat(t, s) p(t, s), obeys the same recursion as
// alpha with frames and states in reverse. beta-hat(t, s) leaves out frame t's
// own emission: the beta of eq. 9 without a division in gamma.

#include "extended.h"

// A path passes a label in each frame at most, and needs a frame for each label
// to come. The first and the last frame in which one may be among a window's 32
// pairs, of alpha or of w; or one frame off, where it leaves something to a
// neighbour.
METAL_FUNC int first_frame(int window) {
  return metal::max(32 * window - 2, 0);
}

METAL_FUNC int last_frame(int window, int T_n, int S_n) {
  return metal::min(T_n - 1, T_n - S_n + 32 * window + 32);
}

// The same the other way round: the windows, by their first labels, in which a
// path may be between frame `begin` and the one before `end`.
struct Band {
  int first;
  int last;
};

METAL_FUNC Band band_of(int begin, int end, int T_n, int S_n) {
  return Band{begin - (T_n - S_n) - 32, end + 1};
}

// Segments in the order of a scan.
struct Turns {
  int first;
  int last; // before the first, where there is none
};

METAL_FUNC Turns
turns_of(int window, int T_n, int S_n, int size, int segments, bool backward) {
  const int first = first_frame(window);
  const int last = last_frame(window, T_n, S_n);
  if (first > last) {
    return Turns{0, -1};
  }
  return Turns{
      backward ? segments - 1 - last / size : first / size,
      backward ? segments - 1 - first / size : last / size};
}

METAL_FUNC bool contains(Turns turns, int turn) {
  return turn >= turns.first && turn <= turns.last;
}

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
      sum(after.blank, after.label), sum(after.label, behind.blank, jumping)};
}

METAL_FUNC Pair emit(Pair arrived, Extended p_blank, Extended p_label) {
  return Pair{product(arrived.blank, p_blank), product(arrived.label, p_label)};
}

METAL_FUNC Pair normalise(Pair a) {
  return Pair{normalise(a.blank), normalise(a.label)};
}

METAL_FUNC Extended choose(bool first, Extended a, Extended b) {
  return Extended{first ? a.m : b.m, first ? a.e : b.e};
}

METAL_FUNC Pair choose(bool first, Pair a, Pair b) {
  return Pair{choose(first, a.blank, b.blank), choose(first, a.label, b.label)};
}

// What the probabilities of a segment's frames are measured in: exp(origin) *
// 2^k, near the greatest of their logits and exact, so that exp(x) over it
// keeps x's digits.
struct Unit {
  float origin; // 0, unless the logits are so large that differences lose none
  int bits; // rounding_bits + k
};

METAL_FUNC Unit unit_of(float greatest) {
  float origin = metal::abs(greatest) < 1048576.0f ? 0.0f : greatest;
  return Unit{
      origin, as_type<int>(metal::fma(greatest - origin, log2_e, rounding))};
}

METAL_FUNC Extended probability(float x, Unit unit) {
  return extended_exp(x - unit.origin, unit.bits);
}

METAL_FUNC Extended shuffle_up(Extended a) {
  return Extended{
      metal::simd_shuffle_up(a.m, 1), metal::simd_shuffle_up(a.e, 1)};
}

METAL_FUNC Extended shuffle_down(Extended a) {
  return Extended{
      metal::simd_shuffle_down(a.m, 1), metal::simd_shuffle_down(a.e, 1)};
}

METAL_FUNC Extended broadcast(Extended a, int lane) {
  return Extended{
      metal::simd_broadcast(a.m, lane), metal::simd_broadcast(a.e, lane)};
}

// A frame's step of alpha in a window, which `entering` comes into from the
// left.
METAL_FUNC Pair step_of_alpha(
    Pair before,
    Extended entering,
    int jump,
    Extended p_blank,
    Extended p_label,
    int lane) {
  const Extended label_before =
      choose(lane == 0, entering, shuffle_up(before.label));
  return normalise(emit(arrive(before, label_before, jump), p_blank, p_label));
}

// gamma = alpha beta-hat / Z, as a plain float.
METAL_FUNC float gamma(Extended alpha, Extended beta, Extended z) {
  return alpha.m * beta.m / z.m * power_of_two(alpha.e + beta.e - z.e);
}
