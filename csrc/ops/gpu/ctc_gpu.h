// The GPU form.
#pragma once

#include <vector>

#include "ops/ctc_loss.h"
#include "ops/ctc_posteriors.h"
#include "ops/forced_align.h"
#include "ops/op.h"

namespace mlx_ctc::gpu {

// What loss() leaves for gradient().
Outputs saved(const std::vector<mx::array>& inputs, const Options& options);

void loss(
    const Options& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs);

// The cotangent as gradient() takes it.
mx::array in_gpu_memory(const mx::array& cotangent, mx::Stream stream);

void gradient(
    const Options& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs);

// What the kernels of align() and posteriors() leave for each other: outputs of
// the node too, since MLX keeps those until the GPU has done with them.
Outputs kept(const std::vector<mx::array>& inputs, const AlignOptions& options);
Outputs kept(
    const std::vector<mx::array>& inputs,
    const PosteriorOptions& options);

// outputs: alignments, scores, and what is kept.
void align(
    const AlignOptions& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs);

// outputs: the posteriors, and what is kept.
void posteriors(
    const PosteriorOptions& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs);

} // namespace mlx_ctc::gpu
