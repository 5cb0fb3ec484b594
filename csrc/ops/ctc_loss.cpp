#include "ops/ctc_loss.h"

#include <atomic>
#include <memory>

#include "ops/cpu/ctc_cpu.h"
#include "ops/op.h"

namespace mlx_ctc {

namespace {

// How many gradient nodes have been made for a loss. It never falls. Shared by
// those nodes and that of the loss.
using GradientCount = std::shared_ptr<std::atomic<int>>;

// Which input of CTCLoss is the loss that CTCForward has computed, and of
// CTCLossGradient the cotangent. What is saved follows it.
constexpr int loss_input = batch_inputs;

struct GradientOptions : Options {
  GradientCount gradients; // null if the loss has been evaluated before

  bool operator==(const GradientOptions&) const = default;
};

// inputs: the batch's four, the loss's cotangent (N), and what CTCForward
// saved. outputs: the gradient (T, N, C).
class CTCLossGradient
    : public OpWithoutDerivative<CTCLossGradient, GradientOptions> {
 public:
  using OpWithoutDerivative::OpWithoutDerivative;

  static constexpr const char* op = "ctc_loss";
  static constexpr const char* no_derivative =
      "The gradient of ctc_loss cannot be differentiated again: second "
      "derivatives are not implemented.";
  static constexpr int results = 1;
  static constexpr gpu::MakePlan make_plan = gpu::gradient_plan;

  Outputs outputs(const std::vector<mx::array>& inputs) {
    if (on_gpu()) { // compiles the kernel while the loss's are compiled
      step(inputs);
    }
    return {{inputs[0].shape()}, {inputs[0].dtype()}};
  }

  const char* name() const override {
    return "CTCLossGradient";
  }

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    bool is_alone = options_.gradients && *options_.gradients == 1;
    if (is_alone && cpu::take_early_gradient(inputs)) {
      cpu::multiply_early_gradient(stream(), inputs, outputs);
    } else {
      cpu::gradient(options_, stream(), inputs, outputs);
    }
  }

  std::pair<std::vector<mx::array>, std::vector<int>> vmap(
      const std::vector<mx::array>& inputs,
      const std::vector<int>& axes) override;
};

// Computes the loss, and saves what the gradient reads. On the CPU, if the
// graph has a gradient by then, also computes the early gradient. Its
// derivative is zero: CTCLoss has the derivative of the loss. outputs: the loss
// (N), and what is saved.
class CTCForward : public Op<CTCForward, Options> {
 public:
  using Op::Op;

  static constexpr const char* op = "ctc_loss";
  static constexpr int results = 1;
  static constexpr gpu::MakePlan make_plan = gpu::loss_plan;

  Outputs outputs(const std::vector<mx::array>& inputs) {
    Outputs outputs;
    outputs.add({inputs[0].shape(1)}, computing_dtype(inputs[0].dtype()));
    if (on_gpu()) {
      outputs.add(step(inputs)->tables());
    } else {
      outputs.add(cpu::saved_outputs(inputs, options_));
      outputs.add(cpu::early_gradient_shape(inputs), inputs[0].dtype());
    }
    return outputs;
  }

  const GradientCount& gradients() const {
    return gradients_;
  }

  // A loss with a gradient stays alone, so that the count is right.
  bool is_equivalent(const Primitive& other) const override {
    return Op::is_equivalent(other) && *gradients_ == 0 &&
        *static_cast<const CTCForward&>(other).gradients_ == 0;
  }

  const char* name() const override {
    return "CTCForward";
  }

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    cpu::loss(options_, *gradients_ == 1, stream(), inputs, outputs);
  }

  std::vector<mx::array> vjp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>&,
      const std::vector<int>& argnums,
      const std::vector<mx::array>&) override {
    std::vector<mx::array> zeros;
    zeros.reserve(argnums.size());
    for (int arg : argnums) {
      zeros.push_back(mx::zeros_like(primals[arg], stream()));
    }
    return zeros;
  }

  std::vector<mx::array> jvp(
      const std::vector<mx::array>& primals,
      const std::vector<mx::array>&,
      const std::vector<int>&) override {
    auto [shapes, dtypes] = outputs(primals);
    std::vector<mx::array> zeros;
    zeros.reserve(shapes.size());
    for (size_t i = 0; i < shapes.size(); ++i) {
      zeros.push_back(mx::zeros(shapes[i], dtypes[i], stream()));
    }
    return zeros;
  }

 private:
  const GradientCount gradients_ = std::make_shared<std::atomic<int>>(0);
};

// The loss as the caller gets it, with its derivative.
// inputs: the batch's four, and the outputs of CTCForward. output: the loss
// (N).
//
// It is a node of its own because of what MLX does when it differentiates a
// node: it makes a cotangent of zeros for each output that has none. CTCForward
// is given stop_gradient(log_probs), so that it is not differentiated.
class CTCLoss : public Op<CTCLoss, Options> {
 public:
  using Op::Op;

  static constexpr const char* op = "ctc_loss";
  static constexpr int results = 1;

  // With respect to log_probs, inputs[0].
  static mx::array gradient(
      const std::vector<mx::array>& inputs,
      const mx::array& cotangent,
      const Options& options,
      const mx::Stream& stream) {
    bool on_gpu = stream.device == mx::Device::gpu;
    auto gradient_inputs = inputs;
    gradient_inputs[loss_input] =
        on_gpu ? gpu::in_gpu_memory(cotangent, stream) : cotangent;
    return CTCLossGradient::node(
        gradient_inputs, {options, counted(inputs[loss_input])}, stream)[0];
  }

  // The count of the gradients of a loss by CTCForward, and one more in it.
  static GradientCount counted(const mx::array& loss) {
    auto* forward = loss.has_primitive()
        ? dynamic_cast<CTCForward*>(&loss.primitive())
        : nullptr;
    if (forward == nullptr) {
      return nullptr;
    }
    ++*forward->gradients();
    return forward->gradients();
  }

  Outputs outputs(const std::vector<mx::array>& inputs) {
    return {{inputs[loss_input].shape()}, {inputs[loss_input].dtype()}};
  }

  const char* name() const override {
    return "CTCLoss";
  }

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    outputs[0].copy_shared_buffer(inputs[loss_input]);
  }

  void eval_gpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    outputs[0].copy_shared_buffer(inputs[loss_input]);
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

  std::pair<std::vector<mx::array>, std::vector<int>> vmap(
      const std::vector<mx::array>& inputs,
      const std::vector<int>& axes) override;
};

std::vector<mx::array> CTCLoss::vjp(
    const std::vector<mx::array>& primals,
    const std::vector<mx::array>& cotangents,
    const std::vector<int>& argnums,
    const std::vector<mx::array>&) {
  std::vector<mx::array> vjps;
  vjps.reserve(argnums.size());
  for (int arg : argnums) {
    vjps.push_back(
        arg == 0 ? gradient(primals, cotangents[0], options_, stream())
                 : mx::zeros_like(primals[arg], stream()));
  }
  return vjps;
}

// The gradient's rows times the tangent's, summed over frames and classes.
std::vector<mx::array> CTCLoss::jvp(
    const std::vector<mx::array>& primals,
    const std::vector<mx::array>& tangents,
    const std::vector<int>& argnums) {
  const auto& loss = primals[loss_input];
  auto tangent = mx::zeros_like(loss, stream());
  for (size_t i = 0; i < argnums.size(); ++i) {
    if (argnums[i] == 0) {
      auto ones = mx::ones_like(loss, stream());
      auto rows = gradient(primals, ones, options_, stream());
      auto products = mx::multiply(
          mx::astype(rows, loss.dtype(), stream()),
          mx::astype(tangents[i], loss.dtype(), stream()),
          stream());
      tangent = mx::sum(products, std::vector<int>{0, 2}, false, stream());
    }
  }
  return {tangent};
}

// The loss and what is saved, of inputs that a caller gave, as inputs of
// CTCLoss.
std::vector<mx::array> with_saved(
    const std::vector<mx::array>& inputs,
    const Options& options,
    const mx::Stream& stream) {
  auto forward_inputs = inputs;
  forward_inputs[0] = mx::stop_gradient(inputs[0], stream);
  auto all = inputs;
  for (auto& output : CTCForward::node(forward_inputs, options, stream)) {
    all.push_back(std::move(output));
  }
  return all;
}

// Without what is saved.
std::vector<mx::array> batch_of(const std::vector<mx::array>& inputs) {
  return {inputs.begin(), inputs.begin() + batch_inputs};
}

// The saved tables have no axis to divide, so the loss of the folded batch is
// computed again.
std::pair<std::vector<mx::array>, std::vector<int>> CTCLoss::vmap(
    const std::vector<mx::array>& inputs,
    const std::vector<int>& axes) {
  int size = vmap_size(inputs, axes);
  auto folded = fold_inputs(batch_of(inputs), axes, size, stream());
  auto loss =
      node(with_saved(folded, options_, stream()), options_, stream())[0];
  int N = loss.shape(0) / size;
  return {{mx::unflatten(loss, 0, {size, N}, stream())}, {0}};
}

std::pair<std::vector<mx::array>, std::vector<int>> CTCLossGradient::vmap(
    const std::vector<mx::array>& inputs,
    const std::vector<int>& axes) {
  int size = vmap_size(inputs, axes);
  auto folded = fold_inputs(batch_of(inputs), axes, size, stream());
  auto cotangent =
      fold(inputs[loss_input], axes[loss_input], size, 0, stream());
  auto gradient = CTCLoss::gradient(
      with_saved(folded, options_, stream()), cotangent, options_, stream());
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
  std::vector<mx::array> inputs = {
      log_probs, targets, input_lengths, target_lengths};
  auto stream = mx::to_stream(s);
  check(CTCLoss::op, inputs, options.blank, stream);
  return CTCLoss::node(with_saved(inputs, options, stream), options, stream)[0];
}

} // namespace mlx_ctc
