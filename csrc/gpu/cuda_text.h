// A launch's kernel as a complete text for NVRTC: with a signature of our own
// and without the headers of MLX and CUDA, which take a second to compile.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gpu/launch.h"

namespace mlx_ctc::gpu {

// The text of a kernel function, extern "C". Its parameters are pointers to the
// inputs and the outputs, then the scalars.
std::string cuda_text(const Launch& launch, const std::string& function);

// All of the launch that the text depends on.
std::vector<int64_t> cuda_text_key(const Launch& launch);

struct Layout {
  std::vector<int> shape;
  std::vector<int64_t> strides;
};

// The scalar arguments: what the text reads of the inputs' shapes and strides,
// and the options. `layouts` are those of the inputs.
std::vector<int> cuda_scalars(
    const Launch& launch,
    const std::vector<Layout>& layouts);

} // namespace mlx_ctc::gpu
