#include "gpu/launch.h"

#include "kernel_text.h"

namespace mlx_ctc::gpu {

std::string text_name(const Launch& launch, Backend backend) {
  auto name = launch.name;
  if (backend == Backend::cuda) {
    std::vector<int> numbers = {launch.max_threads, launch.resident};
    if (has_options(launch)) { // constants of the text that MLX compiles
      numbers.insert(
          numbers.end(), launch.options.begin(), launch.options.end());
    }
    for (int number : numbers) {
      name.append("_").append(std::to_string(number));
    }
  }
  return name;
}

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
