#include "gpu/ctc_gpu.h"

#include <map>
#include <mutex>
#include <set>
#include <tuple>

#include "gpu/launch.h"
#include "mlx/allocator.h"
#include "mlx/backend/cuda/cuda.h"
#include "mlx/backend/metal/metal.h"
#include "mlx/primitives.h"

namespace mlx_ctc::gpu {

namespace {

Backend backend() {
  return mx::cu::is_available() ? Backend::cuda : Backend::metal;
}

using Arrays = std::map<std::string, mx::array>;

// MLX's function for a kernel, made once: making it searches the whole text.
const mx::fast::CustomKernelFunction& kernel(const Launch& launch) {
  static std::mutex mutex;
  static std::
      map<std::tuple<std::string, int, int>, mx::fast::CustomKernelFunction>
          kernels;
  std::lock_guard lock(mutex);
  auto key =
      std::tuple(launch.name, std::get<0>(launch.threadgroup), launch.resident);
  auto found = kernels.find(key);
  if (found == kernels.end()) {
    constexpr bool ensure_row_contiguous =
        false; // strides are read as they are
    auto function = backend() == Backend::cuda
        ? mx::fast::cuda_kernel(
              launch.name,
              launch.inputs,
              launch.outputs,
              launch.source,
              header(launch, Backend::cuda),
              ensure_row_contiguous)
        : mx::fast::metal_kernel(
              launch.name,
              launch.inputs,
              launch.outputs,
              launch.source,
              header(launch, Backend::metal),
              ensure_row_contiguous);
    found = kernels.emplace(key, std::move(function)).first;
  }
  return found->second;
}

// An array without elements has no memory to bind. Its kernel reads only the
// shape, and gets another array's memory with it.
mx::array bindable(const mx::array& a, const mx::array& other) {
  if (a.size() > 0) {
    return a;
  }
  mx::array bound(a.shape(), a.dtype(), nullptr, {});
  bound.copy_shared_buffer(other, a.strides(), a.flags(), 0);
  return bound;
}

// Adds what the launches write to `arrays`.
void run(
    const std::vector<Launch>& launches,
    mx::Stream stream,
    Arrays& arrays) {
  for (const auto& launch : launches) {
    std::vector<mx::array> inputs;
    for (const auto& name : launch.arrays) {
      inputs.push_back(bindable(arrays.at(name), arrays.at("input_lengths")));
    }
    auto outputs = kernel(launch)(
        inputs,
        launch.output_shapes,
        launch.output_dtypes,
        launch.grid,
        launch.threadgroup,
        launch.template_args,
        std::nullopt,
        false,
        stream);
    outputs[0].primitive().eval_gpu(outputs[0].inputs(), outputs);
    for (size_t i = 0; i < outputs.size(); ++i) {
      arrays.emplace(launch.outputs[i], outputs[i]);
    }
  }
}

Arrays named(const std::vector<mx::array>& inputs) {
  return {
      {"log_probs", inputs[0]},
      {"targets", inputs[1]},
      {"input_lengths", inputs[2]},
      {"target_lengths", inputs[3]}};
}

void hand_over(const std::string& name, const Arrays& arrays, mx::array& out) {
  auto found = arrays.find(name);
  if (found != arrays.end()) {
    out.copy_shared_buffer(found->second);
  } else { // nothing to compute
    out.set_data(mx::allocator::malloc(out.nbytes()));
  }
}

// What the launches write besides their results.
struct Tables {
  std::vector<std::string> names;
  std::vector<mx::Shape> shapes;
  std::vector<mx::Dtype> dtypes;

  Tables(
      const std::vector<Launch>& launches,
      const std::set<std::string>& results) {
    for (const auto& launch : launches) {
      for (size_t i = 0; i < launch.outputs.size(); ++i) {
        if (!results.contains(launch.outputs[i])) {
          names.push_back(launch.outputs[i]);
          shapes.push_back(launch.output_shapes[i]);
          dtypes.push_back(launch.output_dtypes[i]);
        }
      }
    }
  }
};

// What loss() leaves for gradient().
Tables saved(const std::vector<mx::array>& inputs, const Options& options) {
  return {loss_launches(inputs, options, backend()), {"loss"}};
}

Tables kept(const std::vector<mx::array>& inputs, const AlignOptions& options) {
  return {align_launches(inputs, options, backend()), {"alignments", "scores"}};
}

std::string result_of(const PosteriorOptions& options) {
  return options.by_class ? "by_class" : "by_label";
}

Tables kept(
    const std::vector<mx::array>& inputs,
    const PosteriorOptions& options) {
  return {posterior_launches(inputs, options, backend()), {result_of(options)}};
}

} // namespace

std::vector<mx::Shape> saved_shapes(
    const std::vector<mx::array>& inputs,
    const Options& options) {
  return saved(inputs, options).shapes;
}

std::vector<mx::Dtype> saved_dtypes(
    const std::vector<mx::array>& inputs,
    const Options& options) {
  return saved(inputs, options).dtypes;
}

void loss(
    const Options& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  auto arrays = named(inputs);
  run(loss_launches(inputs, options, backend()), stream, arrays);
  hand_over("loss", arrays, outputs[0]);
  auto names = saved(inputs, options).names;
  for (size_t i = 0; i < names.size(); ++i) {
    hand_over(names[i], arrays, outputs[i + 1]);
  }
}

void gradient(
    const Options& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  auto arrays = named(inputs);
  arrays.emplace("cotangent", inputs[4]);
  auto names = saved(inputs, options).names;
  for (size_t i = 0; i < names.size(); ++i) {
    arrays.emplace(names[i], inputs[i + 5]);
  }
  run(gradient_launches(inputs, options, backend()), stream, arrays);
  hand_over("gradient", arrays, outputs[0]);
}

std::vector<mx::Shape> kept_shapes(
    const std::vector<mx::array>& inputs,
    const AlignOptions& options) {
  return kept(inputs, options).shapes;
}

std::vector<mx::Dtype> kept_dtypes(
    const std::vector<mx::array>& inputs,
    const AlignOptions& options) {
  return kept(inputs, options).dtypes;
}

void align(
    const AlignOptions& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  auto arrays = named(inputs);
  run(align_launches(inputs, options, backend()), stream, arrays);
  hand_over("alignments", arrays, outputs[0]);
  hand_over("scores", arrays, outputs[1]);
  auto names = kept(inputs, options).names;
  for (size_t i = 0; i < names.size(); ++i) {
    hand_over(names[i], arrays, outputs[i + 2]);
  }
}

std::vector<mx::Shape> kept_shapes(
    const std::vector<mx::array>& inputs,
    const PosteriorOptions& options) {
  return kept(inputs, options).shapes;
}

std::vector<mx::Dtype> kept_dtypes(
    const std::vector<mx::array>& inputs,
    const PosteriorOptions& options) {
  return kept(inputs, options).dtypes;
}

void posteriors(
    const PosteriorOptions& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  auto arrays = named(inputs);
  run(posterior_launches(inputs, options, backend()), stream, arrays);
  hand_over(result_of(options), arrays, outputs[0]);
  auto names = kept(inputs, options).names;
  for (size_t i = 0; i < names.size(); ++i) {
    hand_over(names[i], arrays, outputs[i + 1]);
  }
}

} // namespace mlx_ctc::gpu
