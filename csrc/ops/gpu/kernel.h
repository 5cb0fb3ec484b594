// MLX's own node for a launch. It has the kernel's whole text or code.
#pragma once

#include <memory>
#include <vector>

#include "gpu/launch.h"
#include "mlx/array.h"
#include "mlx/primitives.h"

namespace mlx_ctc::gpu {

namespace mx = mlx::core;

// Of the machine that this runs on.
Backend backend();

std::shared_ptr<mx::Primitive> kernel(
    const Launch& launch,
    const std::vector<mx::array>& inputs,
    mx::Stream stream);

} // namespace mlx_ctc::gpu
