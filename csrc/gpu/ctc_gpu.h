// The GPU form.
#pragma once

#include <vector>

#include "ctc_loss.h"
#include "ctc_posteriors.h"
#include "forced_align.h"

namespace mlx_ctc::gpu {

// Shapes and dtypes of what loss() leaves for gradient(): -log Z of every
// sequence, the frames' normalisers, and alpha at every few frames.
std::vector<mx::Shape> saved_shapes(
    const std::vector<mx::array>& inputs,
    const Options& options);
std::vector<mx::Dtype> saved_dtypes(
    const std::vector<mx::array>& inputs,
    const Options& options);

void loss(
    const Options& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs);

void gradient(
    const Options& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs);

// Shapes and dtypes of what the kernels of align() and posteriors() leave for
// each other: outputs of the node too, since MLX keeps those until the GPU has
// done with them.
std::vector<mx::Shape> kept_shapes(
    const std::vector<mx::array>& inputs,
    const AlignOptions& options);
std::vector<mx::Dtype> kept_dtypes(
    const std::vector<mx::array>& inputs,
    const AlignOptions& options);

// outputs: alignments, scores, and what is kept.
void align(
    const AlignOptions& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs);

std::vector<mx::Shape> kept_shapes(
    const std::vector<mx::array>& inputs,
    const PosteriorOptions& options);
std::vector<mx::Dtype> kept_dtypes(
    const std::vector<mx::array>& inputs,
    const PosteriorOptions& options);

// outputs: the posteriors, and what is kept.
void posteriors(
    const PosteriorOptions& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs);

} // namespace mlx_ctc::gpu
