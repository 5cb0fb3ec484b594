// The normaliser of one frame's softmax. The loss finds and saves it; the
// gradient computes softmax = exp(x - max) / sum from it.
#pragma once

#include <cmath>
#include <cstdint>

#include "lattice/scores.h"
#include "simd/blocks.h"
#include "simd/exponential.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

// max: the greatest logit of a frame. rest: the sum of exp(x - max) over the
// other classes. It keeps the digits that the sum over all, 1 + rest, loses.
template <typename Real>
struct Normaliser {
  Real max;
  Real rest;

  Real sum() const {
    return 1 + rest;
  }
};

// The recursion uses exp(x) / 2^log2_scale_of(max). scaled_sum is the sum of
// those over the classes, and log2_sum a term of its logarithm that is kept
// apart.
struct FoundNormaliser {
  double max;
  double rest;
  double scaled_sum;
  double log2_sum;
};

// log2(exp(x)), rounded to an integer unless it is so great that its rounding
// error does not matter.
inline double log2_scale_of(double max) {
  double scale = max * log2_e;
  return std::abs(scale) < 0x1p20 ? std::rint(scale) : scale;
}

inline double log2_scale_of(float max) {
  float scale = whole_log2(filled(max))[0];
  bool is_moderate = std::abs(scale) <= greatest_log2_scale;
  return is_moderate ? double(scale) : log2_scale_of(double(max));
}

// Of a frame in which ScaledExp does not hold the greatest logit, or of double.
template <typename Real>
FoundNormaliser
compute_normaliser_in_doubles(const Real* x, int64_t C, Real max) {
  double sum = 0;
  for (int64_t c = 0; c < C; c += block_size<double>) {
    Block<double> d = filled(-std::numeric_limits<double>::infinity());
    int64_t count = smaller<int64_t>(C - c, block_size<double>);
    for (int64_t j = 0; j < count; ++j) {
      d[j] = double(x[c + j]) - double(max);
    }
    sum += total<double>(exact_exp(d));
  }
  double scale = log2_scale_of(max);
  return {max, sum - 1, sum, max * log2_e - scale};
}

inline FoundNormaliser
compute_normaliser(const double* x, int64_t C, StoredFrame) {
  return compute_normaliser_in_doubles(x, C, greatest(x, C));
}

// Of x (C). `next`, the frame that will be read next, is fetched meanwhile.
//
// The terms of the sum are the same floats that the recursion uses, and it
// loses nothing of them. Then the rounding of a term changes the loss no more
// than a change of the logit by as much would: by that times the gradient,
// which is small where the loss is. Errors of the sum alone would not cancel.
inline FoundNormaliser
compute_normaliser(const float* x, int64_t C, StoredFrame next) {
  float max = greatest(x, C);
  double scale = log2_scale_of(max);
  if (!(std::abs(scale) <= greatest_log2_scale)) {
    return compute_normaliser_in_doubles(x, C, max);
  }
  ScaledExp exp(filled(float(scale)));
  // The terms are below 2. So the first of two numbers that are added is the
  // greater one, and the rounding error of their sum is found exactly.
  constexpr float start = 2;
  Block<float> sum = filled(start), lost = {};
  for_each_block(x, C, [&](Block<float> block, int64_t c, int64_t) {
    next.fetch(c);
    Block<float> term = exp(block);
    Block<float> grown = sum + term;
    lost += term - (grown - sum);
    sum = grown;
  });
  double scaled_sum = total<double>(sum - start) + total<double>(lost);
  double of_max = exp(filled(max))[0];
  return {max, (scaled_sum - of_max) / of_max, scaled_sum, 0};
}

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
