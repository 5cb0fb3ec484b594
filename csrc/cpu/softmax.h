// The softmax of one frame, in the two passes that its use needs: the
// normaliser with the loss, the probabilities with the gradient.
#pragma once

#include <cstdint>
#include <limits>

#include "cpu/blocks.h"
#include "cpu/exponential.h"

namespace {

// The greatest logit of a frame and the sum of exp(x - it).
struct Normaliser {
  double max;
  double sum;
};

// `next` is where the following call will read: the other sequences' scores lie
// between two frames, too many for the machine to look ahead by itself.
template <typename Real, typename In>
Normaliser normaliser(const Real* x, const In* next, int64_t C) {
  Real greatest[lanes];
  for (int64_t j = 0; j < lanes; ++j) {
    greatest[j] = -std::numeric_limits<Real>::infinity();
  }
  for_each_block(x, C, [&](const Real* block, int64_t c, int64_t) {
    __builtin_prefetch(next + c);
    for (int64_t j = 0; j < lanes; ++j) {
      greatest[j] = larger(block[j], greatest[j]);
    }
  });
  Real max = greatest_of_block(greatest);

  Real partial[lanes] = {};
  for_each_block(x, C, [&](const Real* block, int64_t, int64_t) {
    for (int64_t j = 0; j < lanes; ++j) {
      partial[j] += ordinary_exp(block[j] - max);
    }
  });
  // The greatest class adds 1: in float the others' last digits would be lost.
  double wide[lanes];
  for (int64_t j = 0; j < lanes; ++j) {
    wide[j] = partial[j];
  }
  return {max, sum_of_block(wide)};
}

// out = scale * exp(x - max), over C classes. `next_out` is where the following
// call's result will be written.
template <typename Real, typename In>
void scaled_exp(
    const Real* x,
    const In* next,
    int64_t C,
    Real max,
    Real scale,
    Real* out,
    In* next_out) {
  for_each_block(x, C, [&](const Real* block, int64_t c, int64_t count) {
    __builtin_prefetch(next + c);
    __builtin_prefetch(next_out + c, 1);
    Real y[lanes];
    for (int64_t j = 0; j < lanes; ++j) {
      y[j] = ordinary_exp(block[j] - max) * scale;
    }
    for (int64_t j = 0; j < count; ++j) {
      out[c + j] = y[j];
    }
  });
}

} // namespace
