// The normaliser of one frame's softmax. The loss finds and saves it; the
// gradient computes softmax = exp(x - max) / sum from it.
#pragma once

#include <cstdint>

#include "lattice/scores.h"
#include "simd/blocks.h"
#include "simd/exponential.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

// max: the greatest logit of a frame. sum: of exp(x - max) over its classes.
template <typename Real>
struct Normaliser {
  Real max;
  Real sum;
};

// Of x (C). `next`, the frame that will be read next, is fetched meanwhile.
template <typename Real>
Normaliser<double> find_normaliser(const Real* x, int64_t C, StoredFrame next) {
  Real max = greatest(x, C);
  Block<Real> sum_of_lane = {};
  for_each_block(x, C, [&](Block<Real> block, int64_t c, int64_t) {
    next.fetch(c);
    sum_of_lane += ordinary_exp(block - max);
  });
  // In double: the greatest class adds 1, next to which a float would lose the
  // last digits of the others.
  return {max, total<double>(sum_of_lane)};
}

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
