// The last blank of a target. A path that has come to it stays, so that all it
// needs is its arrivals from the last label: it takes no lane, and a target of
// 32 labels no second window.
//
// In each function lane k has the segment's frame k % FRAMES.

#include "floats.h"

// A frame's probability of the blank, which may be less than a float of
// plain_probability holds.
template <typename Score>
METAL_FUNC Extended number_of(float p_blank, Score score, Unit unit) {
  Extended number = Extended{p_blank, 0};
  if (metal::isnan(p_blank)) {
    number = probability(float(*score), unit);
  }
  return normalise(number);
}

// The state after a segment: what was there before, and every arrival, times
// the blank's probabilities from then on. `label` is the last label's state
// before the frame.
template <int FRAMES>
METAL_FUNC Extended
last_blank_after(Extended before, Extended label, Extended p_blank, int lane) {
  const int k = lane % FRAMES;
  Extended onward = p_blank;
  for (int step = 1; step < FRAMES; step *= 2) {
    const Extended later = Extended{
        metal::simd_shuffle_down(onward.m, step),
        metal::simd_shuffle_down(onward.e, step)};
    onward = normalise(
        product(onward, choose(k + step < FRAMES, later, extended_one())));
  }
  const Extended arrived = choose(k == 0, sum(before, label), label);
  Extended all = normalise(product(arrived, onward));
  for (int step = 1; step < FRAMES; step *= 2) {
    all =
        sum(all,
            Extended{
                metal::simd_shuffle_xor(all.m, step),
                metal::simd_shuffle_xor(all.e, step)});
  }
  return normalise(all);
}

// Its gamma: the sum of all arrivals until then, each with what follows it.
// `behind` is w of the last blank in the next frame.
template <int FRAMES>
METAL_FUNC float last_blank_gamma(
    Extended before,
    Extended label,
    Extended p_blank,
    Extended behind,
    Extended z,
    int lane) {
  const int k = lane % FRAMES;
  const Extended arrived = choose(k == 0, sum(before, label), label);
  float gamma = arrived.m * p_blank.m * behind.m / z.m *
      power_of_two(arrived.e + p_blank.e + behind.e - z.e);
  for (int step = 1; step < FRAMES; step *= 2) {
    const float earlier = metal::simd_shuffle_up(gamma, step);
    gamma += k >= step ? earlier : 0.0f;
  }
  return gamma;
}
