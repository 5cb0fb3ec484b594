// The loss from the total probability z.

#include "pointers.h"
#include "recursion.h"
#include "sequence.h"
#include "tables.h"
#include "threads.h"

// Logits are not normalised before the scan, and its probabilities are relative
// to the scale of each segment. So z lacks a factor for each frame:
//
//   scale / exp(greatest) * 1 / (sum of exp(logit - greatest))
//
// The threads of a threadgroup take the segments in turn. This is the product
// of a thread's; an invalid normaliser makes `valid` false.
template <typename Sequence>
METAL_FUNC Extended product_of_normalisers(
    thread const Sequence& sequence,
    int segment_frames,
    thread bool& valid,
    Threads self) {
  const int T_n = sequence.T_n;
  Extended result = extended_one();
  for (int begin = self.index * segment_frames; begin < T_n;
       begin += self.count * segment_frames) {
    const int end = metal::min(begin + segment_frames, T_n);
    float greatest = -metal::numeric_limits<float>::infinity();
    for (int t = begin; t < end; ++t) {
      greatest = metal::max(greatest, sequence.greatest_logit(t));
    }
    const Scale scale = scale_of(greatest);
    for (int t = begin; t < end; ++t) {
      const float rest = sequence.softmax_rest(t);
      valid = valid && rest >= 0.0f;
      const Extended p_of_greatest =
          probability(sequence.greatest_logit(t), scale);
      result.m /= (1.0f + rest) * p_of_greatest.m;
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

// The products of the normalisers of each simdgroup's segments.
template <typename Sequence>
METAL_FUNC void store_products(
    Shared<uint64_t> products, // (simdgroups)
    thread bool& valid,
    thread const Sequence& sequence,
    int segment_frames,
    Threads self) {
  const Extended product = product_of_lanes(
      product_of_normalisers(sequence, segment_frames, valid, self));
  if (self.lane == 0) {
    products[self.simdgroup] = extended_to_bits(product);
  }
}

METAL_FUNC Extended
multiply_all(Extended a, Shared<uint64_t> factors, int count) {
  for (int i = 0; i < count; ++i) {
    a = normalise(multiply(a, extended_from_bits(factors[i])));
  }
  return a;
}

// z, equation 8: a path ends in the last blank or the last label.
METAL_FUNC Extended sum_of_final_states(Shared<uint64_t> final_states) {
  return normalise(
      add(extended_from_bits(final_states[0]),
          extended_from_bits(final_states[1])));
}

// -log of z times the normalisers that it lacks; NaN for an invalid sequence,
// infinity or 0 for a target without a path. Rounding can make the probability
// of a certain alignment greater than 1 by up to 1 ulp per frame: the loss is
// then 0, as it is for a probability of exactly 1, without a sign.
METAL_FUNC float loss_of(
    Extended z,
    Shared<uint64_t> products, // (count) of normalisers
    int count,
    int T_n,
    bool zero_infinity) {
  if (is_invalid(z)) {
    return metal::numeric_limits<float>::quiet_NaN();
  }
  if (is_zero(z)) {
    return zero_infinity ? 0.0f : metal::numeric_limits<float>::infinity();
  }
  const float loss = minus_log(multiply_all(z, products, count));
  return loss <= 0.0f && loss >= -1.2e-7f * float(T_n) ? 0.0f : loss;
}
