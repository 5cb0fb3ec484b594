#include "ops/gpu/kernel.h"

#include <string>
#include <utility>
#include <variant>

#include "mlx/backend/cuda/cuda.h"
#include "mlx/backend/metal/metal.h"
#include "mlx/fast.h"
#include "ops/gpu/cuda_kernel.h"
#include "ops/gpu/step.h"

namespace mlx_ctc::gpu {

namespace {

// The number of elements below which MLX passes an input in Metal's constant
// address space.
constexpr size_t constant_elements = 8;

// Where MLX compiles for CUDA. An array of options would be in the host's
// memory, for which each threadgroup would wait (see in_gpu_memory).
std::string source_with_options(const Launch& launch) {
  std::string values;
  for (int option : launch.options) {
    values += std::to_string(option) + ", ";
  }
  return "const int " + std::string(options_name) + "[] = {" + values + "};\n" +
      launch.source;
}

// MLX before 0.32.1 caches Metal's libraries and CUDA's modules by the kernel's
// name, so the name says all that the text depends on besides the template
// arguments: of the inputs, their dtypes and which are in constant memory.
std::string unique_name(
    const Launch& launch,
    const std::vector<mx::array>& inputs) {
  auto name = text_name(launch, backend());
  for (const auto& input : inputs) {
    name += input.size() < constant_elements ? "_c" : "_d";
    name += std::to_string(static_cast<int>(input.dtype().val()));
  }
  return name;
}

std::shared_ptr<mx::Primitive> compiled_by_mlx(
    const Launch& launch,
    const std::vector<mx::array>& inputs,
    mx::Stream stream) {
  constexpr bool ensure_row_contiguous = false; // the kernels take any strides
  auto on = backend();
  auto name = unique_name(launch, inputs);
  Names output_names;
  std::vector<mx::Shape> shapes;
  std::vector<mx::Dtype> dtypes;
  for (const auto& table : launch.outputs) {
    output_names.push_back(table.name);
    shapes.push_back(shape_of(table));
    dtypes.push_back(dtype_of(table.type));
  }
  std::vector<std::pair<std::string, mx::fast::TemplateArg>> template_args;
  for (const auto& [name, value] : launch.template_args) {
    if (auto type = std::get_if<Type>(&value)) {
      template_args.emplace_back(name, dtype_of(*type));
    } else if (auto flag = std::get_if<bool>(&value)) {
      template_args.emplace_back(name, *flag);
    } else {
      template_args.emplace_back(name, std::get<int>(value));
    }
  }
  auto input_names = launch.inputs;
  std::string source = launch.source;
  if (on == Backend::cuda && has_options(launch)) {
    input_names.pop_back();
    source = source_with_options(launch);
  }
  auto function = on == Backend::cuda ? mx::fast::cuda_kernel(
                                            name,
                                            input_names,
                                            output_names,
                                            source,
                                            header(launch, on),
                                            ensure_row_contiguous)
                                      : mx::fast::metal_kernel(
                                            name,
                                            input_names,
                                            output_names,
                                            source,
                                            header(launch, on),
                                            ensure_row_contiguous);
  auto outputs = function(
      inputs,
      shapes,
      dtypes,
      launch.grid,
      launch.threadgroup,
      template_args,
      std::nullopt,
      false,
      stream);
  return outputs[0].primitive_ptr();
}

} // namespace

Backend backend() {
  static const Backend backend =
      mx::cu::is_available() ? Backend::cuda : Backend::metal;
  return backend;
}

std::shared_ptr<mx::Primitive> kernel(
    const Launch& launch,
    const std::vector<mx::array>& inputs,
    mx::Stream stream) {
  if (backend() == Backend::cuda) {
    if (auto compiled = cuda_kernel(launch, inputs, stream)) {
      return compiled;
    }
  }
  return compiled_by_mlx(launch, inputs, stream);
}

} // namespace mlx_ctc::gpu
