// The sum of exponentials of one frame's logits, relative to the greatest.

#include "exp.h"
#include "pointers.h"

struct SoftmaxSum {
  float greatest;
  float total; // of exp(logit - greatest); NaN once a logit is NaN or +infinity
};

// The sum over every `step`-th class from `first` on, in one pass. It is
// rescaled whenever a greater logit comes.
template <typename Scores>
METAL_FUNC SoftmaxSum
sum_of_thread(Scores scores, int64_t stride, int C, int first, int step) {
  constexpr int unroll = 8;
  const float infinity = metal::numeric_limits<float>::infinity();
  float greatest = -infinity;
  float total = 0.0f;
  scores += first * stride;
  for (int c = first; c < C; c += step * unroll) {
    float x[unroll];
#pragma unroll
    for (int i = 0; i < unroll; ++i) {
      x[i] = -infinity;
      if (c + i * step < C) {
        x[i] = float(*scores);
      }
      scores += step * stride;
    }
    float new_greatest = greatest;
#pragma unroll
    for (int i = 0; i < unroll; ++i) {
      new_greatest = metal::max(new_greatest, x[i]);
    }
    if (!(new_greatest <= greatest)) { // greater or NaN
      total *= softmax_sum_term(greatest - new_greatest);
      greatest = new_greatest;
    }
    if (greatest > -infinity) {
#pragma unroll
      for (int i = 0; i < unroll; ++i) {
        total += softmax_sum_term(x[i] - greatest);
      }
    }
  }
  return SoftmaxSum{greatest, total};
}

// The sum over groups of LANES lanes, in each of them.
template <int LANES>
METAL_FUNC SoftmaxSum sum_of_lanes(SoftmaxSum sum) {
  float greatest = sum.greatest;
  for (int step = LANES / 2; step > 0; step /= 2) {
    greatest = metal::max(greatest, metal::simd_shuffle_xor(greatest, step));
  }
  float total = sum.total * softmax_sum_term(sum.greatest - greatest);
  for (int step = LANES / 2; step > 0; step /= 2) {
    total += metal::simd_shuffle_xor(total, step);
  }
  return SoftmaxSum{greatest, total};
}

// The sum over simdgroups, of which `greatest` and `totals` have one each.
METAL_FUNC SoftmaxSum sum_of_simdgroups(
    float greatest,
    Shared<float> greatests,
    Shared<float> totals,
    int simdgroups) {
  for (int i = 0; i < simdgroups; ++i) {
    greatest = metal::max(greatest, greatests[i]);
  }
  float total = 0.0f;
  for (int i = 0; i < simdgroups; ++i) {
    const float part = totals[i];
    total +=
        part == 0.0f ? 0.0f : part * softmax_sum_term(greatests[i] - greatest);
  }
  return SoftmaxSum{greatest, total};
}
