#include "ops/gpu/step.h"

#include <array>
#include <map>
#include <string>
#include <utility>

#include "mlx/allocator.h"
#include "mlx/ops.h"
#include "ops/arguments.h"
#include "ops/gpu/cuda_kernel.h"
#include "ops/gpu/kernel.h"

namespace mlx_ctc::gpu {

namespace {

using Arrays = std::map<std::string, mx::array>;

Problem sizes_of(
    const std::vector<mx::array>& inputs,
    int blank,
    bool with_logits,
    Backend backend) {
  const auto& log_probs = inputs[0];
  return {
      .T = log_probs.shape(0),
      .N = log_probs.shape(1),
      .C = log_probs.shape(2),
      .S = inputs[1].shape(1),
      .type = type_of(log_probs.dtype()),
      .blank = blank,
      .with_logits = with_logits,
      .backend = backend};
}

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
mx::array array_of(const std::array<int, 2>& options) {
  static std::mutex mutex;
  static auto* arrays = new std::map<std::array<int, 2>, mx::array>;
  std::lock_guard lock(mutex);
  auto found = arrays->find(options);
  if (found == arrays->end()) {
    mx::array values(options.begin(), {static_cast<int>(options.size())});
    found = arrays->emplace(options, values).first;
  }
  return found->second;
}

// Adds what the launch writes to `arrays`.
void run(const Launch& launch, mx::Stream stream, Arrays& arrays) {
  std::vector<mx::array> inputs;
  for (const auto& name : launch.arrays) {
    if (name == options_name) {
      if (backend() == Backend::metal) {
        inputs.push_back(array_of(launch.options));
      }
      continue;
    }
    inputs.push_back(bindable(arrays.at(name), arrays.at("input_lengths")));
  }
  std::vector<mx::array> outputs;
  outputs.reserve(launch.outputs.size());
  for (const auto& table : launch.outputs) {
    outputs.emplace_back(
        shape_of(table),
        dtype_of(table.type),
        nullptr,
        std::vector<mx::array>{});
  }
  kernel(launch, inputs, stream)->eval_gpu(inputs, outputs);
  for (size_t i = 0; i < outputs.size(); ++i) {
    arrays.emplace(launch.outputs[i].name, outputs[i]);
  }
}

} // namespace

Problem problem_of(
    const std::vector<mx::array>& inputs,
    const Options& options,
    Backend backend) {
  auto problem = sizes_of(inputs, options.blank, options.with_logits, backend);
  problem.zero_infinity = options.zero_infinity;
  problem.normalized = options.normalized;
  return problem;
}

Problem problem_of(
    const std::vector<mx::array>& inputs,
    const AlignOptions& options,
    Backend backend) {
  return sizes_of(inputs, options.blank, options.with_logits, backend);
}

Problem problem_of(
    const std::vector<mx::array>& inputs,
    const PosteriorOptions& options,
    Backend backend) {
  auto problem = sizes_of(inputs, options.blank, options.with_logits, backend);
  problem.by_class = options.by_class;
  return problem;
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
    case mx::float64:
      return Type::float64;
    default:
      return Type::float32;
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
    const Plan& plan,
    size_t limit) {
  size_t bytes = 0;
  for (const auto& table : plan.tables) {
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

std::shared_ptr<const Plan> Step::plan(
    const Problem& problem,
    mx::Stream stream) {
  std::lock_guard lock(mutex_);
  if (plan_ == nullptr || !(problem_ == problem)) {
    problem_ = problem;
    plan_ = std::make_shared<const Plan>(make_(problem));
    if (problem.backend == Backend::cuda) {
      start_compiling(*plan_, stream);
    }
  }
  return plan_;
}

void Step::run(
    const Problem& problem,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  auto plan = this->plan(problem, stream);
  Arrays arrays;
  for (size_t i = 0; i < plan->inputs.size(); ++i) {
    arrays.emplace(plan->inputs[i], inputs[i]);
  }
  for (const auto& launch : plan->launches) {
    gpu::run(launch, stream, arrays);
  }
  auto names = plan->results;
  for (const auto& table : plan->tables) {
    names.push_back(table.name);
  }
  for (size_t i = 0; i < names.size(); ++i) {
    auto found = arrays.find(names[i]);
    if (found != arrays.end()) {
      outputs[i].copy_shared_buffer(found->second);
    } else { // an empty problem
      outputs[i].set_data(mx::allocator::malloc(outputs[i].nbytes()));
    }
  }
}

// The cotangent of a sum is one number, which MLX keeps in the host's memory.
// On CUDA each of thousands of threadgroups would wait 3 us for it.
mx::array in_gpu_memory(const mx::array& cotangent, mx::Stream stream) {
  bool is_far = backend() == Backend::cuda;
  return is_far ? mx::contiguous(cotangent, false, stream) : cotangent;
}

} // namespace mlx_ctc::gpu
