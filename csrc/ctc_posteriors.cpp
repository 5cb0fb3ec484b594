#include "ctc_posteriors.h"

#include "arguments.h"
#include "cpu/ctc_cpu.h"
#include "gpu/ctc_gpu.h"
#include "mlx/ops.h"

namespace mlx_ctc {

namespace {

// Builds the node; its first output is the posteriors.
std::vector<mx::array> posteriors_node(
    const std::vector<mx::array>& inputs,
    const PosteriorOptions& options,
    const mx::Stream& stream) {
  bool on_gpu = stream.device == mx::Device::gpu;
  auto shapes = on_gpu ? gpu::kept_shapes(inputs, options)
                       : cpu::saved_shapes(inputs, options.loss());
  auto dtypes = on_gpu ? gpu::kept_dtypes(inputs, options)
                       : cpu::saved_dtypes(inputs, options.loss());
  int T = inputs[0].shape(0), N = inputs[0].shape(1), C = inputs[0].shape(2);
  int width = options.by_class ? C : inputs[1].shape(1) + 1;
  auto dtype = inputs[0].dtype() == mx::float64 ? mx::float64 : mx::float32;
  shapes.insert(shapes.begin(), mx::Shape{N, T, width});
  dtypes.insert(dtypes.begin(), dtype);
  return mx::array::make_arrays(
      std::move(shapes),
      dtypes,
      std::make_shared<CTCPosteriors>(stream, options),
      inputs);
}

[[noreturn]] void no_derivative() {
  fail(
      "ctc_posteriors",
      "Posteriors cannot be differentiated. Pass mx.stop_gradient(log_probs).");
}

} // namespace

mx::array ctc_posteriors(
    const mx::array& log_probs,
    const mx::array& targets,
    const mx::array& input_lengths,
    const mx::array& target_lengths,
    const PosteriorOptions& options,
    mx::StreamOrDevice s) {
  auto stream = mx::to_stream(s);
  std::vector<mx::array> inputs = {
      log_probs, targets, input_lengths, target_lengths};
  check("ctc_posteriors", inputs, options.blank, stream);
  return posteriors_node(inputs, options, stream)[0];
}

void CTCPosteriors::eval_cpu(
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  cpu::posteriors(options_, stream(), inputs, outputs);
}

void CTCPosteriors::eval_gpu(
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  gpu::posteriors(options_, stream(), inputs, outputs);
}

std::vector<mx::array> CTCPosteriors::vjp(
    const std::vector<mx::array>&,
    const std::vector<mx::array>&,
    const std::vector<int>&,
    const std::vector<mx::array>&) {
  no_derivative();
}

std::vector<mx::array> CTCPosteriors::jvp(
    const std::vector<mx::array>&,
    const std::vector<mx::array>&,
    const std::vector<int>&) {
  no_derivative();
}

std::pair<std::vector<mx::array>, std::vector<int>> CTCPosteriors::vmap(
    const std::vector<mx::array>& inputs,
    const std::vector<int>& axes) {
  int size = vmap_size(inputs, axes);
  auto outputs = posteriors_node(
      fold_inputs(inputs, axes, size, stream()), options_, stream());
  int N = outputs[0].shape(0) / size;
  outputs[0] = mx::unflatten(outputs[0], 0, {size, N}, stream());
  std::vector<int> out_axes(outputs.size(), -1);
  out_axes[0] = 0;
  return {outputs, out_axes};
}

bool CTCPosteriors::is_equivalent(const Primitive& other) const {
  return options_ == static_cast<const CTCPosteriors&>(other).options_;
}

std::vector<mx::Shape> CTCPosteriors::output_shapes(
    const std::vector<mx::array>& inputs) {
  std::vector<mx::Shape> shapes;
  for (const auto& out : posteriors_node(inputs, options_, stream())) {
    shapes.push_back(out.shape());
  }
  return shapes;
}

} // namespace mlx_ctc
