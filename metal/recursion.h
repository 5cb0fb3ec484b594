// The forward and the backward recursion (Graves et al. 2006, section 4.1,
// equations 6 to 11) in extended-range numbers, which have no limits. One lane
// holds a pair of states: pair i is the blank before label i, and label i. For
// a target of S labels, equation 6 is
//
//   blank i:  alpha'(blank i) = p(blank) * (alpha(blank i) + alpha(label i-1))
//   label i:  alpha'(label i) = p(label i) * (alpha(label i) + alpha(blank i)
//                                 + alpha(label i-1) if it is another class)
//
// where alpha is the sum over all path prefixes at frame t - 1 and alpha' at
// frame t. A path starts before frame 0 in blank 0 (with probability 1), and
// ends in the last blank or the last label:
//
//   z = alpha(blank S) + alpha(label S-1)                      (equation 8)
//
// The scan computes beta_p(t, s) = beta(t, s) * p(t, s), where beta(t, s) sums
// the continuations of a path after frame t, without the emission of frame t
// (the paper's beta includes it). beta_p is alpha of the reversed target in
// reversed frames, so that one implementation does both, and
//
//   gamma(t, s) = alpha(t, s) * beta(t, s) / z
//
// needs no division by p. tests/reference.py has the same recursion in float64.

#include "exp.h"

// A number for each state of a pair: Extended here, Wide in growth.h.
template <typename Number>
struct PairOf {
  Number blank;
  Number label;
};

using Pair = PairOf<Extended>;

METAL_FUNC Pair zero_pair() {
  return Pair{extended_zero(), extended_zero()};
}

METAL_FUNC Pair normalise(Pair a) {
  return Pair{normalise(a.blank), normalise(a.label)};
}

METAL_FUNC Pair choose(bool first, Pair a, Pair b) {
  return Pair{choose(first, a.blank, b.blank), choose(first, a.label, b.label)};
}

// The sums over the predecessors of a pair's states: equation 6 without the
// emission. `skip` is 0 if a path may skip the blank between the label before
// and this one, otherwise an exponent that makes that term zero.
template <typename Number>
METAL_FUNC PairOf<Number>
sum_of_predecessors(PairOf<Number> previous, Number label_before, int skip) {
  const Number skipping = Number{label_before.m, label_before.e + skip};
  return PairOf<Number>{
      add(previous.blank, label_before),
      add(previous.label, previous.blank, skipping)};
}

// The sums over the successors of a pair's states: beta of a frame, equation
// 10, from beta_p of the frame after it. `next` is beta_p of the next pair.
// `skip` is 0 if a path may skip the blank between this label and the next.
METAL_FUNC Pair sum_of_successors(Pair beta_p, Pair next, int skip) {
  Extended skipping = Extended{next.label.m, next.label.e + skip};
  return Pair{
      add(beta_p.blank, beta_p.label), add(beta_p.label, next.blank, skipping)};
}

// Multiplies by the frame's emission probabilities.
template <typename Number>
METAL_FUNC PairOf<Number>
emit(PairOf<Number> sums, Number p_blank, Number p_label) {
  return PairOf<Number>{
      multiply(sums.blank, p_blank), multiply(sums.label, p_label)};
}

// One frame of alpha, equation 6, in a window of 32 pairs, one per lane.
// `entering` is alpha of the label before the window's first.
METAL_FUNC Pair alpha_step(
    Pair previous,
    Extended entering,
    int skip,
    Extended p_blank,
    Extended p_label,
    int lane) {
  const Extended label_before =
      choose(lane == 0, entering, shuffle_up(previous.label));
  return normalise(emit(
      sum_of_predecessors(previous, label_before, skip), p_blank, p_label));
}

// beta of a frame, and beta_p, which has its emission as a factor.
template <typename States>
struct BetaStep {
  States beta;
  States beta_p;
};

// One frame of beta, equation 10, from beta_p of the frame after it. `entering`
// is beta_p of the pair after that of `edge_lane`, which has the window's last
// label.
METAL_FUNC BetaStep<Pair> beta_step(
    Pair beta_p,
    Pair entering,
    int skip,
    Extended p_blank,
    Extended p_label,
    int lane,
    int edge_lane) {
  const Pair from_lane =
      Pair{shuffle_down(beta_p.blank, 1), shuffle_down(beta_p.label, 1)};
  const Pair next = choose(lane >= edge_lane, entering, from_lane);
  const Pair beta = sum_of_successors(beta_p, next, skip);
  return BetaStep<Pair>{beta, normalise(emit(beta, p_blank, p_label))};
}

// gamma = alpha * beta / z as a float.
METAL_FUNC float gamma(Extended alpha, Extended beta, Extended z) {
  return alpha.m * beta.m / z.m * power_of_two(alpha.e + beta.e - z.e);
}

// Probabilities in one segment are relative to a scale, exp(origin) * 2^k,
// close to the greatest score of the segment, so that they fit in floats. The
// factor is exact, and cancels in gamma.
struct Scale {
  float origin; // 0, or a greatest score of 2^20 or more, whose differences to
                // other scores are exact
  int bits; // round_offset_bits + k
};

METAL_FUNC Scale scale_of(float greatest_score) {
  const float origin =
      metal::abs(greatest_score) < 1048576.0f ? 0.0f : greatest_score;
  return Scale{origin, nearest_power(greatest_score - origin).bits};
}

METAL_FUNC Extended probability(float score, Scale scale) {
  return extended_exp(score - scale.origin, scale.bits);
}
