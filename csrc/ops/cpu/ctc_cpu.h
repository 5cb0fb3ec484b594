// The CPU form of the op: a batch of sequences over threads.
#pragma once

#include <vector>

#include "ops/ctc_loss.h"
#include "ops/ctc_posteriors.h"
#include "ops/op.h"

namespace mlx_ctc::cpu {

// The shapes and types of what loss() saves for gradient(): -log z of every
// sequence, the frames' normalisers, and the checkpoints of alpha, mantissas
// and exponents.
Outputs saved_outputs(
    const std::vector<mx::array>& inputs,
    const Options& options);

// The shape of the last output of loss(), the early gradient: that for
// cotangents of 1. Computed with the loss it needs no second forward recursion.
// It has no elements where it does not pay.
mx::Shape early_gradient(const std::vector<mx::array>& inputs);

void loss(
    const Options& options,
    bool with_gradient,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs);

void gradient(
    const Options& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs);

// Whether the early gradient has been computed, and its memory is taken by this
// call and by none before: a compiled function that has captured a gradient
// evaluates it in each of its calls.
bool take_early_gradient(const mx::array& early);

// The gradient from an early one that has been taken, the last of the inputs,
// whose memory the output takes over.
void multiply_early_gradient(
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs);

// The posteriors, and after them in `outputs` what loss() leaves.
void posteriors(
    const PosteriorOptions& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs);

} // namespace mlx_ctc::cpu
