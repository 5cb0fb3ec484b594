#include "ops/gpu/kernel.h"

#include <cstdint>
#include <map>
#include <mutex>
#include <tuple>
#include <variant>

#include "mlx/backend/cuda/cuda.h"
#include "mlx/backend/metal/metal.h"

namespace mlx_ctc::gpu {

namespace {

// Sequences of many lengths make many launches. With so many kept, all are
// forgotten.
constexpr size_t most_kept = 256;

// All that a node depends on, and what MLX's generator reads of the inputs.
using Key = std::vector<int64_t>;

Key key_of(
    const Launch& launch,
    const std::vector<mx::array>& inputs,
    mx::Stream stream) {
  auto [gx, gy, gz] = launch.grid;
  Key key = {
      reinterpret_cast<intptr_t>(launch.source),
      stream.index,
      launch.max_threads,
      launch.resident,
      std::get<0>(launch.threadgroup),
      gx,
      gy,
      gz};
  for (const auto& [name, arg] : launch.template_args) {
    if (auto dtype = std::get_if<mx::Dtype>(&arg)) {
      key.push_back(static_cast<int64_t>(dtype->val()));
    } else if (auto flag = std::get_if<bool>(&arg)) {
      key.push_back(*flag);
    } else {
      key.push_back(std::get<int>(arg));
    }
  }
  for (const auto& input : inputs) {
    key.push_back(static_cast<int64_t>(input.dtype().val()));
    key.push_back(input.ndim());
    key.push_back(input.size() < 8); // in Metal's constant memory
  }
  return key;
}

std::shared_ptr<mx::Primitive> make(
    const Launch& launch,
    const std::vector<mx::array>& inputs,
    mx::Stream stream) {
  constexpr bool ensure_row_contiguous = false; // strides are read as they are
  auto on = backend();
  Names names;
  for (const auto& output : launch.outputs) {
    names.push_back(output.name);
  }
  auto [shapes, dtypes] = without_names(launch.outputs);
  auto function = on == Backend::cuda ? mx::fast::cuda_kernel(
                                            launch.name,
                                            launch.inputs,
                                            names,
                                            launch.source,
                                            header(launch, on),
                                            ensure_row_contiguous)
                                      : mx::fast::metal_kernel(
                                            launch.name,
                                            launch.inputs,
                                            names,
                                            launch.source,
                                            header(launch, on),
                                            ensure_row_contiguous);
  auto outputs = function(
      inputs,
      shapes,
      dtypes,
      launch.grid,
      launch.threadgroup,
      launch.template_args,
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
  static std::mutex mutex;
  static std::map<Key, std::shared_ptr<mx::Primitive>> kept;
  std::lock_guard lock(mutex);
  auto key = key_of(launch, inputs, stream);
  auto found = kept.find(key);
  if (found == kept.end()) {
    if (kept.size() >= most_kept) {
      kept.clear();
    }
    found = kept.emplace(std::move(key), make(launch, inputs, stream)).first;
  }
  return found->second;
}

} // namespace mlx_ctc::gpu
