// A launch's kernel compiled by csrc/cuda for MLX to run, in place of MLX's own
// compilation: without headers, several at a time, and kept on disk.
#pragma once

#include <memory>
#include <vector>

#include "cuda/compiler.h"
#include "gpu/plan.h"
#include "mlx/array.h"
#include "mlx/primitives.h"

namespace mlx_ctc::gpu {

namespace mx = mlx::core;

// A launch's kernel. The function's name has a hash of the text: MLX before
// 0.32.1 tells modules apart by it, and the package's kernels are found by it.
cuda::Source cuda_source(const Launch& launch);

// Begins to compile the plan's kernels for the stream's device.
void start_compiling(const Plan& plan, mx::Stream stream);

// MLX's node for the launch on inputs of these shapes and strides. Null where
// NVRTC is missing or fails.
std::shared_ptr<mx::Primitive> cuda_kernel(
    const Launch& launch,
    const std::vector<mx::array>& inputs,
    mx::Stream stream);

// What the default device's compiler has done so far.
cuda::Compiler::Counts compilations();

} // namespace mlx_ctc::gpu
