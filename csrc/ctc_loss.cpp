#include "ctc_loss.h"

#include "arguments.h"
#include "cpu/ctc_cpu.h"
#include "gpu/ctc_gpu.h"
#include "mlx/ops.h"

namespace mlx_ctc {

namespace {

// Builds the node; its first output is the loss, the others are saved for the
// gradient.
std::vector<mx::array> loss_node(
    const std::vector<mx::array>& inputs,
    const Options& options,
    const mx::Stream& stream) {
  bool on_gpu = stream.device == mx::Device::gpu;
  auto shapes = on_gpu ? gpu::saved_shapes(inputs, options)
                       : cpu::saved_shapes(inputs, options);
  auto dtypes = on_gpu ? gpu::saved_dtypes(inputs, options)
                       : cpu::saved_dtypes(inputs, options);
  auto dtype = inputs[0].dtype() == mx::float64 ? mx::float64 : mx::float32;
  shapes.insert(shapes.begin(), mx::Shape{inputs[0].shape(1)});
  dtypes.insert(dtypes.begin(), dtype);
  return mx::array::make_arrays(
      std::move(shapes),
      dtypes,
      std::make_shared<CTCLoss>(stream, options),
      inputs);
}

mx::array gradient_node(
    const std::vector<mx::array>& inputs, // CTCLoss's four
    const mx::array& cotangent,
    const std::vector<mx::array>& loss, // CTCLoss's outputs
    const Options& options,
    const mx::Stream& stream) {
  auto gradient_inputs = inputs;
  gradient_inputs.push_back(cotangent);
  gradient_inputs.insert(gradient_inputs.end(), loss.begin() + 1, loss.end());
  return mx::array(
      inputs[0].shape(),
      inputs[0].dtype(),
      std::make_shared<CTCLossGradient>(stream, options),
      std::move(gradient_inputs));
}

[[noreturn]] void no_second_derivative() {
  fail(
      "ctc_loss",
      "The gradient of ctc_loss cannot be differentiated again: second "
      "derivatives are not implemented.");
}

} // namespace

mx::array ctc_loss(
    const mx::array& log_probs,
    const mx::array& targets,
    const mx::array& input_lengths,
    const mx::array& target_lengths,
    const Options& options,
    mx::StreamOrDevice s) {
  auto stream = mx::to_stream(s);
  std::vector<mx::array> inputs = {
      log_probs, targets, input_lengths, target_lengths};
  check("ctc_loss", inputs, options.blank, stream);
  return loss_node(inputs, options, stream)[0];
}

void CTCLoss::eval_cpu(
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  cpu::loss(options_, stream(), inputs, outputs);
}

void CTCLoss::eval_gpu(
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  gpu::loss(options_, stream(), inputs, outputs);
}

std::vector<mx::array> CTCLoss::vjp(
    const std::vector<mx::array>& primals,
    const std::vector<mx::array>& cotangents,
    const std::vector<int>& argnums,
    const std::vector<mx::array>& outputs) {
  std::vector<mx::array> vjps;
  for (int arg : argnums) {
    vjps.push_back(
        arg == 0
            ? gradient_node(primals, cotangents[0], outputs, options_, stream())
            : mx::zeros_like(primals[arg], stream()));
  }
  return vjps;
}

// The gradient's rows times the tangent's, summed over frames and classes.
std::vector<mx::array> CTCLoss::jvp(
    const std::vector<mx::array>& primals,
    const std::vector<mx::array>& tangents,
    const std::vector<int>& argnums) {
  auto outputs = loss_node(primals, options_, stream());
  auto tangent = mx::zeros_like(outputs[0], stream());
  for (size_t i = 0; i < argnums.size(); ++i) {
    if (argnums[i] == 0) {
      auto ones = mx::ones_like(outputs[0], stream());
      auto gradient = gradient_node(primals, ones, outputs, options_, stream());
      auto products = mx::multiply(
          mx::astype(gradient, ones.dtype(), stream()),
          mx::astype(tangents[i], ones.dtype(), stream()),
          stream());
      tangent = mx::sum(products, std::vector<int>{0, 2}, false, stream());
    }
  }
  return {tangent};
}

std::pair<std::vector<mx::array>, std::vector<int>> CTCLoss::vmap(
    const std::vector<mx::array>& inputs,
    const std::vector<int>& axes) {
  int size = vmap_size(inputs, axes);
  auto outputs =
      loss_node(fold_inputs(inputs, axes, size, stream()), options_, stream());
  int N = outputs[0].shape(0) / size;
  outputs[0] = mx::reshape(outputs[0], {size, N}, stream());
  // The vmapped gradient computes its own tables.
  std::vector<int> out_axes(outputs.size(), -1);
  out_axes[0] = 0;
  return {outputs, out_axes};
}

bool CTCLoss::is_equivalent(const Primitive& other) const {
  return options_ == static_cast<const CTCLoss&>(other).options_;
}

std::vector<mx::Shape> CTCLoss::output_shapes(
    const std::vector<mx::array>& inputs) {
  auto outputs = loss_node(inputs, options_, stream());
  std::vector<mx::Shape> shapes;
  for (const auto& out : outputs) {
    shapes.push_back(out.shape());
  }
  return shapes;
}

void CTCLossGradient::eval_cpu(
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  cpu::gradient(options_, stream(), inputs, outputs);
}

void CTCLossGradient::eval_gpu(
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  gpu::gradient(options_, stream(), inputs, outputs);
}

std::vector<mx::array> CTCLossGradient::vjp(
    const std::vector<mx::array>&,
    const std::vector<mx::array>&,
    const std::vector<int>&,
    const std::vector<mx::array>&) {
  no_second_derivative();
}

std::vector<mx::array> CTCLossGradient::jvp(
    const std::vector<mx::array>&,
    const std::vector<mx::array>&,
    const std::vector<int>&) {
  no_second_derivative();
}

std::pair<std::vector<mx::array>, std::vector<int>> CTCLossGradient::vmap(
    const std::vector<mx::array>& inputs,
    const std::vector<int>& axes) {
  int size = vmap_size(inputs, axes);
  auto folded = fold_inputs(inputs, axes, size, stream());
  auto cotangent = fold(inputs[4], axes[4], size, 0, stream());
  auto loss = loss_node(folded, options_, stream());
  auto gradient = gradient_node(folded, cotangent, loss, options_, stream());
  auto T = gradient.shape(0), N = gradient.shape(1), C = gradient.shape(2);
  return {{mx::reshape(gradient, {T, size, N / size, C}, stream())}, {1}};
}

bool CTCLossGradient::is_equivalent(const Primitive& other) const {
  return options_ == static_cast<const CTCLossGradient&>(other).options_;
}

std::vector<mx::Shape> CTCLossGradient::output_shapes(
    const std::vector<mx::array>& inputs) {
  return {inputs[0].shape()};
}

} // namespace mlx_ctc
