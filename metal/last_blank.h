// The last blank of a target, which has no lane: a target of 32 labels then
// needs one window, not two.
//
// A path that has come to the last blank stays there. So its alpha is a sum
// over the frames in which a path can have arrived from the last label, and can
// be computed for a whole segment at once. In these functions lane k has the
// frame k % SEGMENT of the segment.

#include "floats.h"

// The blank's probability as an extended-range number. A float_probability()
// that was out of range, NaN, is computed again from the score.
template <typename Scores>
METAL_FUNC Extended extended_p_blank(float p_blank, Scores score, Scale scale) {
  Extended number = Extended{p_blank, 0};
  if (metal::isnan(p_blank)) {
    number = probability(float(*score), scale);
  }
  return normalise(number);
}

// Alpha of the last blank after a segment, from `before`, its alpha before the
// segment, and `label`, alpha of the last label before the lane's frame. All
// three are normalised.
template <int SEGMENT>
METAL_FUNC Extended
last_blank_after(Extended before, Extended label, Extended p_blank, int lane) {
  static_assert(SEGMENT <= 32, "products of mantissas below 2 are floats");
  const int k = lane % SEGMENT;
  // The product of the blank's probabilities from this frame to the last.
  Extended p_of_rest = p_blank;
  for (int step = 1; step < SEGMENT; step *= 2) {
    const Extended later = shuffle_down(p_of_rest, step);
    p_of_rest =
        multiply(p_of_rest, choose(k + step < SEGMENT, later, extended_one()));
  }
  const Extended arrived = choose(k == 0, add(before, label), label);
  const Extended term = normalise(multiply(arrived, p_of_rest));
  const int e = metal::simd_max(term.e);
  float total = term.m * power_of_two(term.e - e);
  for (int step = 1; step < SEGMENT; step *= 2) {
    total += metal::simd_shuffle_xor(total, step);
  }
  return normalise(Extended{total, e});
}

// Gamma of the last blank: the sum, over this frame and those before it, of the
// paths that arrive there. `beta_p` is that of the last blank in the next
// frame.
template <int SEGMENT>
METAL_FUNC float last_blank_gamma(
    Extended before,
    Extended label,
    Extended p_blank,
    Extended beta_p,
    Extended z,
    int lane) {
  const int k = lane % SEGMENT;
  const Extended arrived = choose(k == 0, add(before, label), label);
  float gamma = arrived.m * p_blank.m * beta_p.m / z.m *
      power_of_two(arrived.e + p_blank.e + beta_p.e - z.e);
  for (int step = 1; step < SEGMENT; step *= 2) {
    const float earlier = metal::simd_shuffle_up(gamma, step);
    gamma += k >= step ? earlier : 0.0f;
  }
  return gamma;
}
