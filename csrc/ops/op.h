// What the ops have in common as nodes of MLX's graph. Their inputs begin with
// log_probs, targets, input_lengths and target_lengths; greedy_decode's targets
// have no labels. Their first outputs are the results, the others are tables
// that later computations read.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "mlx/array.h"
#include "mlx/ops.h"
#include "mlx/primitives.h"
#include "mlx/utils.h"
#include "ops/arguments.h"
#include "ops/gpu/kernel.h"
#include "ops/gpu/step.h"

namespace mlx_ctc {

struct Outputs {
  std::vector<mx::Shape> shapes;
  std::vector<mx::Dtype> dtypes;

  void add(const mx::Shape& shape, mx::Dtype dtype) {
    shapes.push_back(shape);
    dtypes.push_back(dtype);
  }

  void add(const std::vector<gpu::Table>& tables) {
    for (const auto& table : tables) {
      add(gpu::shape_of(table), gpu::dtype_of(table.type));
    }
  }

  void add(const Outputs& others) {
    for (size_t i = 0; i < others.shapes.size(); ++i) {
      add(others.shapes[i], others.dtypes[i]);
    }
  }
};

/**
 * The base of the class Self, which has
 *
 *   static constexpr const char* op: its name in messages;
 *   static constexpr int results: how many of the outputs, the first ones, are
 *   results. Each has N as its first axis, or Self overrides vmap();
 *   Outputs outputs(inputs): for inputs of these shapes and dtypes;
 *   name() and eval_cpu();
 *   static constexpr gpu::MakePlan make_plan, which eval_gpu() runs, if it has
 *   kernels.
 */
template <typename Self, typename Options>
class Op : public mx::Primitive {
 public:
  Op(mx::Stream stream, const Options& options)
      : Primitive(stream), options_(options) {}

  // The outputs for inputs that a caller gave.
  static std::vector<mx::array> call(
      const std::vector<mx::array>& inputs,
      const Options& options,
      mx::StreamOrDevice s) {
    auto stream = mx::to_stream(s);
    check(Self::op, inputs, options.blank, stream);
    return node(inputs, options, stream);
  }

  static std::vector<mx::array> node(
      const std::vector<mx::array>& inputs,
      const Options& options,
      const mx::Stream& stream) {
    auto self = std::make_shared<Self>(stream, options);
    auto [shapes, dtypes] = self->outputs(inputs);
    return mx::array::make_arrays(std::move(shapes), dtypes, self, inputs);
  }

  // The mapped axis is folded into N, and the op runs once on the larger batch.
  // Its tables cannot be divided by that axis.
  std::pair<std::vector<mx::array>, std::vector<int>> vmap(
      const std::vector<mx::array>& inputs,
      const std::vector<int>& axes) override {
    int size = vmap_size(inputs, axes);
    auto folded = fold_inputs(inputs, axes, size, stream());
    auto outputs = node(folded, options_, stream());
    std::vector<int> out_axes(outputs.size(), -1);
    for (int i = 0; i < Self::results; ++i) {
      int N = outputs[i].shape(0) / size;
      outputs[i] = mx::unflatten(outputs[i], 0, {size, N}, stream());
      out_axes[i] = 0;
    }
    return {outputs, out_axes};
  }

  bool is_equivalent(const Primitive& other) const override {
    return options_ == static_cast<const Self&>(other).options_;
  }

  void eval_gpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    if constexpr (requires { Self::make_plan; }) {
      step(inputs)->run(stream(), inputs, outputs);
    } else {
      fail(Self::op, "This op is for the CPU.");
    }
  }

  std::vector<mx::Shape> output_shapes(
      const std::vector<mx::array>& inputs) override {
    return static_cast<Self*>(this)->outputs(inputs).shapes;
  }

 protected:
  bool on_gpu() {
    return stream().device == mx::Device::gpu;
  }

  // The problem that the plan is made from; only for a node on a GPU.
  gpu::Problem problem(const std::vector<mx::array>& inputs) const {
    return gpu::problem_of(inputs, options_, gpu::backend());
  }

  std::shared_ptr<gpu::Step> step(const std::vector<mx::array>& inputs) {
    return gpu::step(Self::make_plan, problem(inputs), stream());
  }

  const Options options_;
};

// The base of one that cannot be differentiated, for the reason that it has in
// `static constexpr const char* no_derivative`.
template <typename Self, typename Options>
class OpWithoutDerivative : public Op<Self, Options> {
 public:
  using Op<Self, Options>::Op;

  std::vector<mx::array> vjp(
      const std::vector<mx::array>&,
      const std::vector<mx::array>&,
      const std::vector<int>&,
      const std::vector<mx::array>&) override {
    fail(Self::op, Self::no_derivative);
  }

  std::vector<mx::array> jvp(
      const std::vector<mx::array>&,
      const std::vector<mx::array>&,
      const std::vector<int>&) override {
    fail(Self::op, Self::no_derivative);
  }
};

} // namespace mlx_ctc
