// A step on the GPU: an op's plan, made for the shapes of its inputs, and run
// with MLX's kernels.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "gpu/plan.h"
#include "mlx/array.h"
#include "ops/ctc_loss.h"
#include "ops/ctc_posteriors.h"
#include "ops/forced_align.h"

namespace mlx_ctc::gpu {

// The problem of an op's inputs, log_probs, targets, input_lengths and
// target_lengths, on this machine's backend or another.
Problem problem_of(
    const std::vector<mx::array>& inputs,
    const Options& options,
    Backend backend);
Problem problem_of(
    const std::vector<mx::array>& inputs,
    const AlignOptions& options,
    Backend backend);
Problem problem_of(
    const std::vector<mx::array>& inputs,
    const PosteriorOptions& options,
    Backend backend);

mx::Shape shape_of(const Table& table);
mx::Dtype dtype_of(Type type);
Type type_of(mx::Dtype dtype); // of scores

// Refuses a problem whose plan's tables take more than `limit` bytes.
void check_memory(
    const std::string& op,
    const Problem& problem,
    const Plan& plan,
    size_t limit);

// Part of a node of MLX's graph. The plan is made when the node is, and kept;
// a compiled function may evaluate the same node with other shapes later.
class Step {
 public:
  using MakePlan = Plan (*)(const Problem&);

  explicit Step(MakePlan make) : make_(make) {}

  // Begins to compile the kernels of a new plan where that takes long, on CUDA.
  std::shared_ptr<const Plan> plan(const Problem& problem, mx::Stream stream);

  // outputs: the results, then the plan's tables. Those are outputs because MLX
  // keeps outputs until the GPU has finished with them.
  void run(
      const Problem& problem,
      mx::Stream stream,
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs);

 private:
  const MakePlan make_;
  std::mutex mutex_; // two threads may evaluate the same compiled function
  Problem problem_{};
  std::shared_ptr<const Plan> plan_;
};

// The loss's cotangent as the gradient's step takes it.
mx::array in_gpu_memory(const mx::array& cotangent, mx::Stream stream);

} // namespace mlx_ctc::gpu
