// A step on the GPU: an op's plan for a problem, and MLX's kernels for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "gpu/plan.h"
#include "mlx/array.h"
#include "mlx/primitives.h"

namespace mlx_ctc::gpu {

namespace mx = mlx::core;

// With the options that all ops have.
Problem problem_of(
    const std::vector<mx::array>& inputs,
    int blank,
    bool with_logits,
    Backend backend);

// The problem of an op's inputs, log_probs, targets, input_lengths and
// target_lengths, with its options, on this machine's backend or another.
template <typename Options>
Problem problem_of(
    const std::vector<mx::array>& inputs,
    const Options& options,
    Backend backend) {
  auto problem =
      problem_of(inputs, options.blank, options.with_logits, backend);
  if constexpr (requires { options.zero_infinity; }) {
    problem.zero_infinity = options.zero_infinity;
  }
  if constexpr (requires { options.normalized; }) {
    problem.normalized = options.normalized;
  }
  if constexpr (requires { options.by_class; }) {
    problem.by_class = options.by_class;
  }
  return problem;
}

mx::Shape shape_of(const Table& table);
mx::Dtype dtype_of(Type type);
Type type_of(mx::Dtype dtype); // of scores

// Refuses a problem whose tables take more than `limit` bytes.
void check_memory(
    const std::string& op,
    const Problem& problem,
    const std::vector<Table>& tables,
    size_t limit);

// A plan, and MLX's primitives for its launches: a set for each stream, and on
// CUDA for each layout of the inputs. Shared by all calls with the same
// problem.
class Step {
 public:
  explicit Step(Plan plan) : plan_(std::move(plan)) {}

  const std::vector<Table>& tables() const {
    return plan_.tables;
  }

  // outputs: the results, then the tables. The tables are outputs because MLX
  // keeps a node's outputs until the GPU has finished with them.
  void run(
      mx::Stream stream,
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs);

 private:
  using Kernels = std::vector<std::shared_ptr<mx::Primitive>>;
  using Layout = std::vector<int64_t>;

  // The arrays that a launch reads.
  std::vector<mx::array> read_by(
      const Launch& launch,
      const std::vector<mx::array>& arrays) const;

  // MLX's primitives for the launches.
  Kernels make_kernels(mx::Stream stream, const std::vector<mx::array>& arrays)
      const;
  Kernels kernels(
      mx::Stream stream,
      const std::vector<mx::array>& inputs,
      const std::vector<mx::array>& arrays);

  const Plan plan_;
  std::mutex mutex_;
  std::map<Layout, Kernels> kernels_;
};

using MakePlan = Plan (*)(const Problem&);

// The step of an op that has such plans. Where that takes long, on CUDA, begins
// to compile a new step's kernels.
std::shared_ptr<Step>
step(MakePlan make, const Problem& problem, mx::Stream stream);

// The loss's cotangent as the gradient's step takes it.
mx::array in_gpu_memory(const mx::array& cotangent, mx::Stream stream);

} // namespace mlx_ctc::gpu
