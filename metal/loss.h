// The loss from the total probability z.

#include "pointers.h"
#include "recursion.h"

// Logits are not normalised before the scan, and its probabilities are relative
// to the scale of each segment. So z lacks a factor for each frame:
//
//   scale / exp(greatest) * 1 / (sum of exp(logit - greatest))
//
// This is their product over every `step`-th segment from `first` on. An
// invalid normaliser makes `valid` false.
template <typename Normalisers>
METAL_FUNC Extended product_of_normalisers(
    Normalisers normalisers, // (T_n, 2)
    int T_n,
    int segment_frames,
    int first,
    int step,
    thread bool& valid) {
  Extended result = extended_one();
  for (int begin = first * segment_frames; begin < T_n;
       begin += step * segment_frames) {
    const int end = metal::min(begin + segment_frames, T_n);
    float greatest = -metal::numeric_limits<float>::infinity();
    for (int t = begin; t < end; ++t) {
      greatest = metal::max(greatest, float(normalisers[int64_t(t) * 2]));
    }
    const Scale scale = scale_of(greatest);
    for (int t = begin; t < end; ++t) {
      const float inverse_sum =
          1.0f / (1.0f + float(normalisers[int64_t(t) * 2 + 1]));
      valid = valid && inverse_sum > 0.0f;
      const Extended p_of_greatest =
          probability(float(normalisers[int64_t(t) * 2]), scale);
      result.m *= inverse_sum / p_of_greatest.m;
      result = normalise(Extended{result.m, result.e - p_of_greatest.e});
    }
  }
  return result;
}

// The product over all lanes, in every lane.
METAL_FUNC Extended product_of_lanes(Extended a) {
  for (int step = 16; step > 0; step /= 2) {
    a.m *= metal::simd_shuffle_xor(a.m, step);
    a.e += metal::simd_shuffle_xor(a.e, step);
  }
  return normalise(a);
}

// z, equation 8: a path ends in the last blank or the last label.
METAL_FUNC Extended sum_of_final_states(Shared<uint64_t> final_states) {
  return normalise(
      add(extended_from_bits(final_states[0]),
          extended_from_bits(final_states[1])));
}

METAL_FUNC Extended
multiply_all(Extended a, Shared<uint64_t> factors, int count) {
  for (int i = 0; i < count; ++i) {
    a = normalise(multiply(a, extended_from_bits(factors[i])));
  }
  return a;
}

// The loss for the probability of all paths over T_n frames. Rounding can make
// that of a certain alignment greater than 1 by up to 1 ulp per frame: the loss
// is then 0, as it is for a probability of exactly 1, without a sign.
METAL_FUNC float loss_of(Extended probability, int T_n) {
  const float loss = minus_log(probability);
  return loss <= 0.0f && loss >= -1.2e-7f * float(T_n) ? 0.0f : loss;
}
