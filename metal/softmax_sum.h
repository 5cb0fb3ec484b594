// The sum of exponentials of one frame's logits, relative to the greatest.

#include "exp.h"
#include "pointers.h"
#include "two_floats.h"

// Near 1 a float would lose the digits of what the other logits add. So they
// are summed apart: all logits together have 1 + rest.
struct SoftmaxSum {
  float greatest;
  // The sum of exp(logit - greatest) over all logits but one of the greatest.
  // NaN once a logit is NaN.
  float rest;

  METAL_FUNC bool is_valid() const {
    return rest >= 0.0f &&
        metal::abs(greatest) < metal::numeric_limits<float>::infinity();
  }
};

METAL_FUNC SoftmaxSum no_logits() {
  return SoftmaxSum{-metal::numeric_limits<float>::infinity(), 0.0f};
}

// exp(x - greatest) for x <= greatest. If x is 16 to 32 less, the difference
// and its product with log2(e) are each rounded by 1e-6; `error` makes up for
// it. NaN remains.
METAL_FUNC float exact_softmax_term(float x, float greatest) {
  const TwoFloats difference = two_sum(x, -greatest);
  const float exponent = difference.high * log2_e;
  const float term = metal::precise::exp2(exponent);
  float error = metal::fma(difference.high, log2_e, -exponent);
  error = metal::fma(difference.high, log2_e_rest, error);
  error = metal::fma(error, ln_2, difference.low);
  return difference.high < -150.0f ? 0.0f : metal::fma(term, error, term);
}

// The sum over the logits of both. If one greatest is NaN, so is the rest. With
// many classes, each of 32 threads has terms near its own greatest, and the
// threads' sums are far apart: EXACT where these are added up.
template <bool EXACT>
METAL_FUNC SoftmaxSum sum_of_both(SoftmaxSum a, SoftmaxSum b) {
  const bool first_is_greater = a.greatest >= b.greatest;
  const SoftmaxSum greater = first_is_greater ? a : b;
  const SoftmaxSum lesser = first_is_greater ? b : a;
  float term = 0.0f; // of the lesser one's greatest logit
  if (lesser.greatest > -metal::numeric_limits<float>::infinity()) {
    term = EXACT ? exact_softmax_term(lesser.greatest, greater.greatest)
                 : softmax_sum_term(lesser.greatest - greater.greatest);
  }
  const float rest = metal::fma(lesser.rest, term, term);
  return SoftmaxSum{greater.greatest, greater.rest + rest};
}

// The sum over every `step`-th class from `first` on, in one pass. It is
// rescaled whenever a greater logit comes.
template <typename Scores>
METAL_FUNC SoftmaxSum
sum_of_thread(Scores scores, int64_t stride, int C, int first, int step) {
  constexpr int unroll = 8;
  const float infinity = metal::numeric_limits<float>::infinity();
  SoftmaxSum sum = no_logits();
  float lost = 0.0f; // of sum.rest, by rounding
  scores += first * stride;
  for (int c = first; c < C; c += step * unroll) {
    float x[unroll];
    if (c + (unroll - 1) * step < C) {
#pragma unroll
      for (int i = 0; i < unroll; ++i) {
        x[i] = float(scores[i * step * stride]);
      }
    } else {
#pragma unroll
      for (int i = 0; i < unroll; ++i) {
        x[i] = -infinity;
        if (c + i * step < C) {
          x[i] = float(scores[i * step * stride]);
        }
      }
    }
    scores += unroll * step * stride;
    float greatest = sum.greatest;
#pragma unroll
    for (int i = 0; i < unroll; ++i) {
      greatest = metal::max(greatest, x[i]);
    }
    float ones = 0.0f; // logits that equal the greatest, which is left out
    if (!(greatest <= sum.greatest)) { // greater or NaN
      const float term = softmax_sum_term(sum.greatest - greatest);
      sum = SoftmaxSum{greatest, metal::fma(sum.rest, term, term)};
      lost *= term;
      ones = -1.0f;
    }
    // All may be -infinity, which less itself would be NaN, or one NaN.
    const float origin = greatest > -infinity ? greatest : 0.0f;
    float terms = lost;
#pragma unroll
    for (int i = 0; i < unroll; ++i) {
      if (x[i] == origin) {
        ones += 1.0f;
      } else {
        terms += softmax_sum_term(x[i] - origin);
      }
    }
    // At first the terms may be greater than the rest, when little is lost.
    const TwoFloats rest = two_sum_of_ordered(sum.rest, terms);
    sum.rest = rest.high + ones;
    lost = rest.low;
  }
  return sum;
}

// The sum over groups of LANES lanes, in the first of each.
template <int LANES>
METAL_FUNC SoftmaxSum sum_of_lanes(SoftmaxSum sum) {
  for (int step = LANES / 2; step > 0; step /= 2) {
    const SoftmaxSum other = {
        metal::simd_shuffle_xor(sum.greatest, step),
        metal::simd_shuffle_xor(sum.rest, step)};
    sum = sum_of_both<(LANES == 32)>(sum, other);
  }
  return sum;
}

// The sum over simdgroups, of which `greatests` and `rests` have one each.
METAL_FUNC SoftmaxSum sum_of_simdgroups(
    Shared<float> greatests,
    Shared<float> rests,
    int simdgroups) {
  SoftmaxSum sum = no_logits();
  for (int i = 0; i < simdgroups; ++i) {
    const SoftmaxSum other = {greatests[i], rests[i]};
    sum = sum_of_both<true>(sum, other);
  }
  return sum;
}
