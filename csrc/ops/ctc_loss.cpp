#include "ops/ctc_loss.h"

#include "ops/cpu/ctc_cpu.h"
#include "ops/op.h"

namespace mlx_ctc {

namespace {

// inputs: CTCLoss's four, the loss's cotangent (N), and what CTCLoss saved.
// outputs: the gradient (T, N, C).
class CTCLossGradient : public OpWithoutDerivative<CTCLossGradient, Options> {
 public:
  using OpWithoutDerivative::OpWithoutDerivative;

  static constexpr const char* op = "ctc_loss";
  static constexpr const char* no_derivative =
      "The gradient of ctc_loss cannot be differentiated again: second "
      "derivatives are not implemented.";
  static constexpr int results = 1;

  Outputs outputs(const std::vector<mx::array>& inputs) {
    return {{inputs[0].shape()}, {inputs[0].dtype()}};
  }

  const char* name() const override {
    return "CTCLossGradient";
  }

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    cpu::gradient(options_, stream(), inputs, outputs);
  }

  void eval_gpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    gpu_step_.run(problem(inputs), stream(), inputs, outputs);
  }

  std::pair<std::vector<mx::array>, std::vector<int>> vmap(
      const std::vector<mx::array>& inputs,
      const std::vector<int>& axes) override;

 private:
  gpu::Step gpu_step_{gpu::gradient_plan};
};

// outputs: the loss (N), and what the gradient can use again.
class CTCLoss : public Op<CTCLoss, Options> {
 public:
  using Op::Op;

  static constexpr const char* op = "ctc_loss";
  static constexpr int results = 1;

  Outputs outputs(const std::vector<mx::array>& inputs) {
    Outputs outputs;
    outputs.add({inputs[0].shape(1)}, computing_dtype(inputs[0].dtype()));
    if (on_gpu()) {
      outputs.add(gpu_step_.plan(problem(inputs))->tables);
    } else {
      outputs.add(cpu::saved(inputs, options_));
    }
    return outputs;
  }

  // With respect to inputs[0], from the outputs.
  static mx::array gradient(
      const std::vector<mx::array>& inputs,
      const mx::array& cotangent,
      const std::vector<mx::array>& outputs,
      const Options& options,
      const mx::Stream& stream) {
    bool on_gpu = stream.device == mx::Device::gpu;
    auto gradient_inputs = inputs;
    gradient_inputs.push_back(
        on_gpu ? gpu::in_gpu_memory(cotangent, stream) : cotangent);
    gradient_inputs.insert(
        gradient_inputs.end(), outputs.begin() + results, outputs.end());
    return CTCLossGradient::node(gradient_inputs, options, stream)[0];
  }

  const char* name() const override {
    return "CTCLoss";
  }

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    cpu::loss(options_, stream(), inputs, outputs);
  }

  void eval_gpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    gpu_step_.run(problem(inputs), stream(), inputs, outputs);
  }

  std::vector<mx::array> vjp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>& cotangents,
      const std::vector<int>& argnums,
      const std::vector<mx::array>& outputs) override;

  std::vector<mx::array> jvp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>& tangents,
      const std::vector<int>& argnums) override;

 private:
  gpu::Step gpu_step_{gpu::loss_plan};
};

std::vector<mx::array> CTCLoss::vjp(
    const std::vector<mx::array>& primals,
    const std::vector<mx::array>& cotangents,
    const std::vector<int>& argnums,
    const std::vector<mx::array>& outputs) {
  std::vector<mx::array> vjps;
  vjps.reserve(argnums.size());
  for (int arg : argnums) {
    vjps.push_back(
        arg == 0 ? gradient(primals, cotangents[0], outputs, options_, stream())
                 : mx::zeros_like(primals[arg], stream()));
  }
  return vjps;
}

// The gradient's rows times the tangent's, summed over frames and classes.
std::vector<mx::array> CTCLoss::jvp(
    const std::vector<mx::array>& primals,
    const std::vector<mx::array>& tangents,
    const std::vector<int>& argnums) {
  auto outputs = node(primals, options_, stream());
  auto tangent = mx::zeros_like(outputs[0], stream());
  for (size_t i = 0; i < argnums.size(); ++i) {
    if (argnums[i] == 0) {
      auto ones = mx::ones_like(outputs[0], stream());
      auto rows = gradient(primals, ones, outputs, options_, stream());
      auto products = mx::multiply(
          mx::astype(rows, ones.dtype(), stream()),
          mx::astype(tangents[i], ones.dtype(), stream()),
          stream());
      tangent = mx::sum(products, std::vector<int>{0, 2}, false, stream());
    }
  }
  return {tangent};
}

// The saved tables have no batch axis under vmap, so the loss of the folded
// batch is computed again.
std::pair<std::vector<mx::array>, std::vector<int>> CTCLossGradient::vmap(
    const std::vector<mx::array>& inputs,
    const std::vector<int>& axes) {
  int size = vmap_size(inputs, axes);
  auto folded = fold_inputs(inputs, axes, size, stream());
  auto cotangent = fold(inputs[4], axes[4], size, 0, stream());
  auto loss = CTCLoss::node(folded, options_, stream());
  auto gradient =
      CTCLoss::gradient(folded, cotangent, loss, options_, stream());
  int N = gradient.shape(1) / size;
  return {{mx::unflatten(gradient, 1, {size, N}, stream())}, {1}};
}

} // namespace

mx::array ctc_loss(
    const mx::array& log_probs,
    const mx::array& targets,
    const mx::array& input_lengths,
    const mx::array& target_lengths,
    const Options& options,
    mx::StreamOrDevice s) {
  return CTCLoss::call(
      {log_probs, targets, input_lengths, target_lengths}, options, s)[0];
}

} // namespace mlx_ctc
