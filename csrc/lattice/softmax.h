// The softmax of one frame, in the two passes that its use needs: the
// normaliser with the loss, the probabilities with the gradient.
#pragma once

#include <cstdint>

#include "lattice/scores.h"
#include "simd/blocks.h"
#include "simd/exponential.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

// The greatest logit of a frame and the sum of exp(x - it).
template <typename Real>
struct Normaliser {
  Real max;
  Real sum;
};

// `next` is the frame of the following call.
template <typename Real>
Normaliser<double> find_normaliser(const Real* x, int64_t C, StoredFrame next) {
  Real max = greatest(x, C);
  Block<Real> sum_of_lane = {};
  for_each_block(x, C, [&](Block<Real> block, int64_t c, int64_t) {
    next.fetch(c);
    sum_of_lane += ordinary_exp(block - max);
  });
  // The greatest class adds 1: in float the others' last digits would be lost.
  return {max, total<double>(sum_of_lane)};
}

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
