// The CPU form of the op: a batch of sequences over threads.
#pragma once

#include <vector>

#include "ops/ctc_loss.h"
#include "ops/ctc_posteriors.h"
#include "ops/op.h"

namespace mlx_ctc::cpu {

// What loss() saves for gradient(), in the order in which it is in the outputs
// of the one and in the inputs of the other. `Array` may be const.
template <typename Array>
struct SavedArrays {
  Array* first;

  Array& minus_log_z() const { // (N), double
    return first[0];
  }
  Array& normalisers() const { // (N, T, 2) of logits, see Normaliser
    return first[1];
  }
  Array& mantissas() const { // (N, checkpoints, 2, S + 1) alpha, see Saved
    return first[2];
  }
  Array& exponents() const { // of the same shape
    return first[3];
  }
  Array& early_gradient() const { // see early_gradient_shape()
    return first[4];
  }
};

// The shapes and types of all but the early gradient.
Outputs saved_outputs(
    const std::vector<mx::array>& inputs,
    const Options& options);

// The early gradient is that for cotangents of 1. Computed with the loss it
// needs no second forward recursion. It has no elements where it does not pay.
mx::Shape early_gradient_shape(const std::vector<mx::array>& inputs);

// outputs: the loss, and SavedArrays.

void loss(
    const Options& options,
    bool with_gradient,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs);

// inputs: the batch's four, the cotangent, and SavedArrays.
void gradient(
    const Options& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs);

// Whether the early gradient has been computed, and its memory is taken by this
// call and by none before: a compiled function that has captured a gradient
// evaluates it in each of its calls. inputs: as of gradient().
bool take_early_gradient(const std::vector<mx::array>& inputs);

// The gradient from an early one that has been taken. The output takes over its
// memory.
void multiply_early_gradient(
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs);

// outputs: the posteriors, and SavedArrays without the early gradient, of which
// minus_log_z() is not written.
void posteriors(
    const PosteriorOptions& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs);

} // namespace mlx_ctc::cpu
