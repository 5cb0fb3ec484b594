// From Z to the loss.

#include "recursion.h"

// The product of some frames' unit over the sum of their exponentials: every
// `step`-th group of `size` frames from the `first` on. A bad normaliser makes
// `good` false.
template <typename Normalisers>
METAL_FUNC Extended product_of_shares(
    Normalisers normalisers, // (T_n, 2)
    int T_n,
    int size,
    int first,
    int step,
    thread bool& good) {
  Extended result = extended_one();
  for (int begin = first * size; begin < T_n; begin += step * size) {
    const int end = metal::min(begin + size, T_n);
    float greatest = -metal::numeric_limits<float>::infinity();
    for (int t = begin; t < end; ++t) {
      greatest = metal::max(greatest, float(normalisers[int64_t(t) * 2]));
    }
    const Unit unit = unit_of(greatest);
    for (int t = begin; t < end; ++t) {
      const float share = normalisers[int64_t(t) * 2 + 1];
      good = good && share > 0.0f;
      const Extended of_greatest =
          probability(float(normalisers[int64_t(t) * 2]), unit);
      result.m *= share / of_greatest.m;
      result = normalise(Extended{result.m, result.e - of_greatest.e});
    }
  }
  return result;
}

// The lanes' product, in every lane.
METAL_FUNC Extended product_of_lanes(Extended a) {
  for (int step = 16; step > 0; step /= 2) {
    a.m *= metal::simd_shuffle_xor(a.m, step);
    a.e += metal::simd_shuffle_xor(a.e, step);
  }
  return normalise(a);
}

// Of the probability of all paths over T_n frames. Rounding may put that of a
// certain alignment a little above 1, and an exact one has no sign.
METAL_FUNC float loss_of(Extended probability, int T_n) {
  const float loss = minus_log(probability);
  return loss <= 0.0f && loss >= -1.2e-7f * float(T_n) ? 0.0f : loss;
}
