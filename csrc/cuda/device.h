// What the driver says of a GPU.
#pragma once

namespace mlx_ctc::cuda {

// A compute capability: 90 is 9.0.
using Architecture = int;

struct Device {
  Architecture architecture;
  int driver; // the newest CUDA that it knows: 12040 is 12.4
};

// Throws if there is no driver, or no such device.
Device describe(int device);

} // namespace mlx_ctc::cuda
