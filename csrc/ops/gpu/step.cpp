#include "ops/gpu/step.h"

#include <map>
#include <stdexcept>
#include <string>
#include <utility>

#include "mlx/allocator.h"
#include "mlx/ops.h"
#include "ops/arguments.h"
#include "ops/gpu/cuda_kernel.h"
#include "ops/gpu/kernel.h"

namespace mlx_ctc::gpu {

namespace {

// An array without elements has no memory to bind. Its kernel reads nothing but
// the shape, and is given another array's memory.
mx::array bindable(const mx::array& a, const mx::array& other) {
  if (a.size() > 0) {
    return a;
  }
  mx::array bound(a.shape(), a.dtype(), nullptr, {});
  bound.copy_shared_buffer(other, a.strides(), a.flags(), 0);
  return bound;
}

// Arrays of all options are kept, because a GPU reads them when the node that
// used them may be gone.
mx::array array_of(const OptionValues& options) {
  static std::mutex mutex;
  static auto* arrays = new std::map<OptionValues, mx::array>;
  std::lock_guard lock(mutex);
  auto found = arrays->find(options);
  if (found == arrays->end()) {
    mx::array values(options.begin(), {static_cast<int>(options.size())});
    found = arrays->emplace(options, values).first;
  }
  return found->second;
}

// What MLX's nodes depend on besides the plan.
std::vector<int64_t> layout_of(
    mx::Stream stream,
    const std::vector<mx::array>& inputs) {
  std::vector<int64_t> layout;
  layout.reserve(64);
  layout.push_back(stream.index);
  if (backend() == Backend::cuda) { // strides are scalars of the node
    for (const auto& input : inputs) {
      const auto& strides = input.strides();
      layout.insert(layout.end(), strides.begin(), strides.end());
    }
  }
  return layout;
}

} // namespace

Problem problem_of(
    const std::vector<mx::array>& inputs,
    int blank,
    bool with_logits,
    Backend backend) {
  const auto& log_probs = inputs[0];
  int N = log_probs.shape(1);
  if (N > max_sequences) {
    throw std::invalid_argument(
        "[mlx_ctc] Expected at most " + std::to_string(max_sequences) +
        " sequences on a GPU but got " + std::to_string(N) + ".");
  }
  return {
      .T = log_probs.shape(0),
      .N = N,
      .C = log_probs.shape(2),
      .S = inputs[1].shape(1),
      .type = type_of(log_probs.dtype()),
      .blank = blank,
      .with_logits = with_logits,
      .backend = backend};
}

mx::Shape shape_of(const Table& table) {
  return mx::Shape(table.shape.begin(), table.shape.end());
}

Type type_of(mx::Dtype dtype) {
  switch (dtype) {
    case mx::float16:
      return Type::float16;
    case mx::bfloat16:
      return Type::bfloat16;
    case mx::float32:
      return Type::float32;
    case mx::float64:
      return Type::float64;
    default:
      throw std::invalid_argument(
          "[mlx_ctc] Expected scores of float16, bfloat16, float32 or float64 "
          "but got another type.");
  }
}

mx::Dtype dtype_of(Type type) {
  switch (type) {
    case Type::float16:
      return mx::float16;
    case Type::bfloat16:
      return mx::bfloat16;
    case Type::float32:
      return mx::float32;
    case Type::float64:
      return mx::float64;
    case Type::int32:
      return mx::int32;
    case Type::int64:
      return mx::int64;
    case Type::uint16:
      return mx::uint16;
    case Type::uint32:
      return mx::uint32;
    case Type::uint64:
      break;
  }
  return mx::uint64;
}

void check_memory(
    const std::string& op,
    const Problem& problem,
    const std::vector<Table>& tables,
    size_t limit) {
  size_t bytes = 0;
  for (const auto& table : tables) {
    size_t of_table = dtype_of(table.type).size();
    for (int length : table.shape) {
      of_table *= length;
    }
    bytes += of_table;
  }
  if (bytes > limit) {
    fail(
        op,
        "Expected to need at most ",
        limit,
        " bytes on the GPU, MLX's memory limit, but T = ",
        problem.T,
        " frames of N = ",
        problem.N,
        " sequences and S = ",
        problem.S,
        " labels need ",
        bytes,
        ". Pass stream=mx.cpu, which needs less, or fewer sequences at once.");
  }
}

void Step::run(
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  if (plan_.launches.empty()) {
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (outputs[i].size() > 0) {
        throw std::logic_error(
            "No launch writes the step's output " +
            plan_.arrays[inputs.size() + i] + " of shape " +
            text(outputs[i].shape()) + ": a result with elements needs one");
      }
      outputs[i].set_data(mx::allocator::malloc(0));
    }
    return;
  }
  auto arrays = inputs;
  arrays.insert(arrays.end(), outputs.begin(), outputs.end());
  auto kernels = this->kernels(stream, inputs, arrays);
  for (size_t i = 0; i < kernels.size(); ++i) {
    const auto& launch = plan_.launches[i];
    std::vector<mx::array> written;
    written.reserve(launch.written.size());
    for (int index : launch.written) {
      written.push_back(arrays[index]);
    }
    kernels[i]->eval_gpu(read_by(launch, arrays), written);
  }
}

std::vector<mx::array> Step::read_by(
    const Launch& launch,
    const std::vector<mx::array>& arrays) const {
  constexpr int input_lengths = 2;
  std::vector<mx::array> read;
  read.reserve(launch.inputs.size());
  for (int index : launch.read) {
    read.push_back(bindable(arrays[index], arrays[input_lengths]));
  }
  if (has_options(launch) && backend() == Backend::metal) {
    read.push_back(array_of(launch.options));
  }
  return read;
}

Step::Kernels Step::make_kernels(
    mx::Stream stream,
    const std::vector<mx::array>& arrays) const {
  Kernels kernels;
  kernels.reserve(plan_.launches.size());
  for (const auto& launch : plan_.launches) {
    kernels.push_back(kernel(launch, read_by(launch, arrays), stream));
  }
  return kernels;
}

Step::Kernels Step::kernels(
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    const std::vector<mx::array>& arrays) {
  // Of one problem. Each has a copy of the kernels' text or code.
  constexpr size_t max_cached = 8;
  auto layout = layout_of(stream, inputs);
  std::lock_guard lock(mutex_);
  auto found = kernels_.find(layout);
  if (found == kernels_.end()) {
    if (kernels_.size() >= max_cached) {
      kernels_.clear();
    }
    found =
        kernels_.emplace(std::move(layout), make_kernels(stream, arrays)).first;
  }
  return found->second;
}

std::shared_ptr<Step>
step(MakePlan make, const Problem& problem, mx::Stream stream) {
  // Batches of many shapes make many steps.
  constexpr size_t max_cached = 128;
  static std::mutex mutex;
  static std::map<std::pair<MakePlan, Problem>, std::shared_ptr<Step>> steps;
  std::lock_guard lock(mutex);
  auto found = steps.find({make, problem});
  if (found == steps.end()) {
    if (steps.size() >= max_cached) {
      steps.clear();
    }
    auto plan = make(problem);
    if (problem.backend == Backend::cuda) {
      start_compiling(plan, stream);
    }
    auto made = std::make_shared<Step>(std::move(plan));
    found = steps.emplace(std::pair{make, problem}, std::move(made)).first;
  }
  return found->second;
}

// The cotangent of a sum is one number, which MLX keeps in the host's memory.
// On CUDA each of thousands of threadgroups would wait 3 us for it.
mx::array in_gpu_memory(const mx::array& cotangent, mx::Stream stream) {
  bool is_far = backend() == Backend::cuda;
  return is_far ? mx::contiguous(cotangent, false, stream) : cotangent;
}

} // namespace mlx_ctc::gpu
