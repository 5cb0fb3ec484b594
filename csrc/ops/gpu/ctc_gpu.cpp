#include "ops/gpu/ctc_gpu.h"

#include <algorithm>
#include <map>

#include "mlx/allocator.h"
#include "ops/gpu/kernel.h"
#include "ops/gpu/launch.h"

namespace mlx_ctc::gpu {

namespace {

using Arrays = std::map<std::string, mx::array>;

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

// Adds what the launch writes to `arrays`.
void run(const Launch& launch, mx::Stream stream, Arrays& arrays) {
  std::vector<mx::array> inputs;
  for (const auto& name : launch.arrays) {
    inputs.push_back(bindable(arrays.at(name), arrays.at("input_lengths")));
  }
  std::vector<mx::array> outputs;
  for (const auto& [name, shape, dtype] : launch.outputs) {
    outputs.emplace_back(shape, dtype, nullptr, std::vector<mx::array>{});
  }
  kernel(launch, inputs, stream)->eval_gpu(inputs, outputs);
  for (size_t i = 0; i < outputs.size(); ++i) {
    arrays.emplace(launch.outputs[i].name, outputs[i]);
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

// What the launches write besides an op's results.
std::vector<NamedOutput> tables_of(
    const std::vector<Launch>& launches,
    const Names& results) {
  std::vector<NamedOutput> tables;
  for (const auto& launch : launches) {
    for (const auto& output : launch.outputs) {
      if (std::find(results.begin(), results.end(), output.name) ==
          results.end()) {
        tables.push_back(output);
      }
    }
  }
  return tables;
}

// An op's outputs: its results, then the tables.
void run(
    const std::vector<Launch>& launches,
    const Names& results,
    mx::Stream stream,
    Arrays arrays,
    std::vector<mx::array>& outputs) {
  for (const auto& launch : launches) {
    run(launch, stream, arrays);
  }
  auto names = results;
  for (auto& table : tables_of(launches, results)) {
    names.push_back(std::move(table.name));
  }
  for (size_t i = 0; i < names.size(); ++i) {
    hand_over(names[i], arrays, outputs[i]);
  }
}

const Names loss_results = {"loss"};
const Names align_results = {"alignments", "scores"};

Names results_of(const PosteriorOptions& options) {
  return {options.by_class ? "by_class" : "by_label"};
}

} // namespace

Outputs saved(const std::vector<mx::array>& inputs, const Options& options) {
  auto launches = loss_launches(inputs, options, backend());
  return without_names(tables_of(launches, loss_results));
}

void loss(
    const Options& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  auto launches = loss_launches(inputs, options, backend());
  run(launches, loss_results, stream, named(inputs), outputs);
}

// The cotangent of a sum is one number, which MLX keeps in the host's memory.
// On CUDA each of thousands of threadgroups would wait 3 us for it.
mx::array in_gpu_memory(const mx::array& cotangent, mx::Stream stream) {
  bool is_far = backend() == Backend::cuda;
  return is_far ? mx::contiguous(cotangent, false, stream) : cotangent;
}

void gradient(
    const Options& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  auto arrays = named(inputs);
  arrays.emplace("cotangent", inputs[4]);
  auto saved =
      tables_of(loss_launches(inputs, options, backend()), loss_results);
  for (size_t i = 0; i < saved.size(); ++i) {
    arrays.emplace(saved[i].name, inputs[i + 5]);
  }
  auto launches = gradient_launches(inputs, options, backend());
  run(launches, {"gradient"}, stream, arrays, outputs);
}

Outputs kept(
    const std::vector<mx::array>& inputs,
    const AlignOptions& options) {
  auto launches = align_launches(inputs, options, backend());
  return without_names(tables_of(launches, align_results));
}

void align(
    const AlignOptions& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  auto launches = align_launches(inputs, options, backend());
  run(launches, align_results, stream, named(inputs), outputs);
}

Outputs kept(
    const std::vector<mx::array>& inputs,
    const PosteriorOptions& options) {
  auto launches = posterior_launches(inputs, options, backend());
  return without_names(tables_of(launches, results_of(options)));
}

void posteriors(
    const PosteriorOptions& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  auto launches = posterior_launches(inputs, options, backend());
  run(launches, results_of(options), stream, named(inputs), outputs);
}

} // namespace mlx_ctc::gpu
