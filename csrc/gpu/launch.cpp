#include "gpu/launch.h"

#include "kernel_text.h"

namespace mlx_ctc::gpu {

std::string header(const Launch& launch, Backend backend) {
  std::string result;
  if (backend == Backend::cuda) {
    result += "#define LAUNCH_BOUNDS ";
    result += std::to_string(launch.max_threads) + ", ";
    result += std::to_string(launch.resident) + "\n";
    result += text::cuda_prelude;
  }
  result += launch.functions;
  return result;
}

} // namespace mlx_ctc::gpu
