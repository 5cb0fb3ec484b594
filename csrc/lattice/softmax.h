// The softmax of one frame, in the two passes that its use needs: the
// normaliser with the loss, the probabilities with the gradient.
#pragma once

#include <cstdint>

#include "simd/blocks.h"
#include "simd/exponential.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

// The greatest logit of a frame and the sum of exp(x - it).
template <typename Real>
struct Normaliser {
  Real max;
  Real sum;
};

constexpr int into_l2 =
    2; // a long row would push itself out of the first cache

// `next` is where the following call will read: the other sequences' scores lie
// between two frames, too many for the machine to look ahead by itself.
template <typename Real, typename In>
Normaliser<double> find_normaliser(const Real* x, const In* next, int64_t C) {
  Real max = greatest(x, C);
  Block<Real> sum_of_lane = {};
  for_each_block(x, C, [&](Block<Real> block, int64_t c, int64_t) {
    __builtin_prefetch(next + c, 0, into_l2);
    sum_of_lane += ordinary_exp(block - max);
  });
  // The greatest class adds 1: in float the others' last digits would be lost.
  return {max, total<double>(sum_of_lane)};
}

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
