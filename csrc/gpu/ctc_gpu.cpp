#include "gpu/ctc_gpu.h"

#include <map>
#include <set>

#include "gpu/kernel.h"
#include "gpu/launch.h"
#include "mlx/allocator.h"

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
    std::vector<mx::array> outputs;
    for (size_t i = 0; i < launch.outputs.size(); ++i) {
      outputs.emplace_back(
          launch.output_shapes[i],
          launch.output_dtypes[i],
          nullptr,
          std::vector<mx::array>{});
    }
    kernel(launch, inputs, stream)->eval_gpu(inputs, outputs);
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

// What the launches write besides their results, by name.
std::vector<std::string> tables_of(
    const std::vector<Launch>& launches,
    const std::set<std::string>& results) {
  std::vector<std::string> tables;
  for (const auto& launch : launches) {
    for (const auto& name : launch.outputs) {
      if (!results.contains(name)) {
        tables.push_back(name);
      }
    }
  }
  return tables;
}

Outputs outputs_of(
    const std::vector<Launch>& launches,
    const std::set<std::string>& results) {
  Outputs tables;
  for (const auto& launch : launches) {
    for (size_t i = 0; i < launch.outputs.size(); ++i) {
      if (!results.contains(launch.outputs[i])) {
        tables.shapes.push_back(launch.output_shapes[i]);
        tables.dtypes.push_back(launch.output_dtypes[i]);
      }
    }
  }
  return tables;
}

void hand_over_all(
    const std::vector<Launch>& launches,
    const std::vector<std::string>& results,
    const Arrays& arrays,
    std::vector<mx::array>& outputs) {
  auto names = results;
  for (auto& table : tables_of(launches, {results.begin(), results.end()})) {
    names.push_back(std::move(table));
  }
  for (size_t i = 0; i < names.size(); ++i) {
    hand_over(names[i], arrays, outputs[i]);
  }
}

std::string result_of(const PosteriorOptions& options) {
  return options.by_class ? "by_class" : "by_label";
}

} // namespace

Outputs saved(const std::vector<mx::array>& inputs, const Options& options) {
  return outputs_of(loss_launches(inputs, options, backend()), {"loss"});
}

void loss(
    const Options& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  auto arrays = named(inputs);
  auto launches = loss_launches(inputs, options, backend());
  run(launches, stream, arrays);
  hand_over_all(launches, {"loss"}, arrays, outputs);
}

void gradient(
    const Options& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  auto arrays = named(inputs);
  arrays.emplace("cotangent", inputs[4]);
  auto names = tables_of(loss_launches(inputs, options, backend()), {"loss"});
  for (size_t i = 0; i < names.size(); ++i) {
    arrays.emplace(names[i], inputs[i + 5]);
  }
  auto launches = gradient_launches(inputs, options, backend());
  run(launches, stream, arrays);
  hand_over_all(launches, {"gradient"}, arrays, outputs);
}

Outputs kept(
    const std::vector<mx::array>& inputs,
    const AlignOptions& options) {
  return outputs_of(
      align_launches(inputs, options, backend()), {"alignments", "scores"});
}

void align(
    const AlignOptions& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  auto arrays = named(inputs);
  auto launches = align_launches(inputs, options, backend());
  run(launches, stream, arrays);
  hand_over_all(launches, {"alignments", "scores"}, arrays, outputs);
}

Outputs kept(
    const std::vector<mx::array>& inputs,
    const PosteriorOptions& options) {
  return outputs_of(
      posterior_launches(inputs, options, backend()), {result_of(options)});
}

void posteriors(
    const PosteriorOptions& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  auto arrays = named(inputs);
  auto launches = posterior_launches(inputs, options, backend());
  run(launches, stream, arrays);
  hand_over_all(launches, {result_of(options)}, arrays, outputs);
}

} // namespace mlx_ctc::gpu
