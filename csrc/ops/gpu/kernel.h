// MLX's own node for a launch. Making one writes the kernel's whole text anew,
// so it is kept for the next time the same launch is asked for.
#pragma once

#include <memory>
#include <vector>

#include "mlx/primitives.h"
#include "ops/gpu/launch.h"

namespace mlx_ctc::gpu {

// Of the machine that this runs on.
Backend backend();

std::shared_ptr<mx::Primitive> kernel(
    const Launch& launch,
    const std::vector<mx::array>& inputs,
    mx::Stream stream);

} // namespace mlx_ctc::gpu
