// What the driver says of a GPU.
#pragma once

#include "cuda/nvrtc.h"

namespace mlx_ctc::cuda {

// Throws if there is no driver, or no such device.
Architecture architecture_of(int device);

} // namespace mlx_ctc::cuda
