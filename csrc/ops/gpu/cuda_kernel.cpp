#include "ops/gpu/cuda_kernel.h"

#include <cstdlib>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

#include "cuda/device.h"
#include "cuda/hash.h"
#include "cuda/library.h"
#include "gpu/cuda_text.h"
#include "mlx/backend/cuda/cuda.h"
#include "mlx/fast.h"
#include "ops/gpu/step.h"

namespace mlx_ctc::gpu {

namespace {

// A kernel takes 20 to 80 kB, most of it the text.
constexpr int64_t max_cache_bytes = 64 << 20;

// libmlx, which depends on the NVRTC that MLX uses, or the library that the
// user names.
std::string nvrtc_library() {
  if (const char* named = std::getenv("MLX_CTC_NVRTC")) {
    return named;
  }
  return cuda::file_of(&mx::cu::is_available);
}

cuda::Libraries libraries() {
  const char* nvfatbin = std::getenv("MLX_CTC_NVFATBIN");
  return {nvrtc_library(), nvfatbin == nullptr ? "" : nvfatbin};
}

cuda::Compiler& compiler(int device) {
  static std::mutex mutex;
  static std::map<int, std::unique_ptr<cuda::Compiler>> compilers;
  std::lock_guard lock(mutex);
  auto& compiler = compilers[device];
  if (compiler == nullptr) {
    compiler = std::make_unique<cuda::Compiler>(
        libraries(),
        [device] { return cuda::describe(device); },
        cuda::Shipped(cuda::shipped_folder()),
        cuda::DiskCache(cuda::cache_folder(), max_cache_bytes));
  }
  return *compiler;
}

// The kernel would read other memory than the arrays'.
void check(const Launch& launch, const std::vector<mx::array>& inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    auto [type, ndim] = launch.parameters[i];
    if (inputs[i].dtype() != dtype_of(type) ||
        static_cast<int>(inputs[i].ndim()) != ndim) {
      throw std::logic_error(
          launch.name + ": the array for " + launch.inputs[i] +
          " has another type than the plan's");
    }
  }
}

std::vector<Layout> layouts_of(const std::vector<mx::array>& inputs) {
  std::vector<Layout> layouts;
  layouts.reserve(inputs.size());
  for (const auto& input : inputs) {
    layouts.push_back(
        {{input.shape().begin(), input.shape().end()},
         {input.strides().begin(), input.strides().end()}});
  }
  return layouts;
}

} // namespace

cuda::Source cuda_source(const Launch& launch) {
  auto text = cuda_text(launch, launch.name);
  auto function = launch.name + "_" + cuda::in_hexadecimal(cuda::hash(text));
  return {function, cuda_text(launch, function)};
}

void start_compiling(const Plan& plan, mx::Stream stream) {
  for (const auto& launch : plan.launches) {
    compiler(stream.device.index).start(cuda_text_key(launch), [&] {
      return cuda_source(launch);
    });
  }
}

std::shared_ptr<mx::Primitive> cuda_kernel(
    const Launch& launch,
    const std::vector<mx::array>& inputs,
    mx::Stream stream) {
  const auto& kernel =
      compiler(stream.device.index).get(cuda_text_key(launch), [&] {
        return cuda_source(launch);
      });
  if (kernel.code.empty()) {
    return nullptr;
  }
  check(launch, inputs);
  std::vector<mx::Shape> shapes;
  std::vector<mx::Dtype> dtypes;
  for (const auto& table : launch.outputs) {
    shapes.push_back(shape_of(table));
    dtypes.push_back(dtype_of(table.type));
  }
  auto scalars = cuda_scalars(launch, layouts_of(inputs));
  auto outputs = mx::fast::precompiled_cuda_kernel(
      kernel.function,
      kernel.code,
      inputs,
      shapes,
      dtypes,
      {scalars.begin(), scalars.end()},
      launch.grid,
      launch.threadgroup,
      0, // dynamic shared memory
      std::nullopt,
      false, // the kernels take any strides
      stream);
  return outputs[0].primitive_ptr();
}

cuda::Compiler::Counts compilations() {
  return compiler(mx::default_device().index).counts();
}

} // namespace mlx_ctc::gpu
