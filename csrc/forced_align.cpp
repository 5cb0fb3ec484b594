#include "forced_align.h"

#include "arguments.h"
#include "cpu/align_cpu.h"
#include "gpu/ctc_gpu.h"
#include "mlx/ops.h"

namespace mlx_ctc {

namespace {

// Builds the node; its first two outputs are the alignments and the scores.
std::vector<mx::array> align_node(
    const std::vector<mx::array>& inputs,
    const AlignOptions& options,
    const mx::Stream& stream) {
  mx::Shape shape = {inputs[0].shape(1), inputs[0].shape(0)};
  auto dtype = inputs[0].dtype() == mx::float64 ? mx::float64 : mx::float32;
  std::vector<mx::Shape> shapes = {shape, shape};
  std::vector<mx::Dtype> dtypes = {mx::int32, dtype};
  if (stream.device == mx::Device::gpu) {
    auto kept_shapes = gpu::kept_shapes(inputs, options);
    auto kept_dtypes = gpu::kept_dtypes(inputs, options);
    shapes.insert(shapes.end(), kept_shapes.begin(), kept_shapes.end());
    dtypes.insert(dtypes.end(), kept_dtypes.begin(), kept_dtypes.end());
  }
  return mx::array::make_arrays(
      std::move(shapes),
      dtypes,
      std::make_shared<ForcedAlign>(stream, options),
      inputs);
}

[[noreturn]] void no_derivative() {
  fail(
      "forced_align",
      "An alignment cannot be differentiated. Pass mx.stop_gradient(log_probs).");
}

} // namespace

std::vector<mx::array> forced_align(
    const mx::array& log_probs,
    const mx::array& targets,
    const mx::array& input_lengths,
    const mx::array& target_lengths,
    const AlignOptions& options,
    mx::StreamOrDevice s) {
  auto stream = mx::to_stream(s);
  std::vector<mx::array> inputs = {
      log_probs, targets, input_lengths, target_lengths};
  check("forced_align", inputs, options.blank, stream);
  auto outputs = align_node(inputs, options, stream);
  return {outputs[0], outputs[1]};
}

void ForcedAlign::eval_cpu(
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  cpu::align(options_, stream(), inputs, outputs);
}

void ForcedAlign::eval_gpu(
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  gpu::align(options_, stream(), inputs, outputs);
}

std::vector<mx::array> ForcedAlign::vjp(
    const std::vector<mx::array>&,
    const std::vector<mx::array>&,
    const std::vector<int>&,
    const std::vector<mx::array>&) {
  no_derivative();
}

std::vector<mx::array> ForcedAlign::jvp(
    const std::vector<mx::array>&,
    const std::vector<mx::array>&,
    const std::vector<int>&) {
  no_derivative();
}

std::pair<std::vector<mx::array>, std::vector<int>> ForcedAlign::vmap(
    const std::vector<mx::array>& inputs,
    const std::vector<int>& axes) {
  int size = vmap_size(inputs, axes);
  auto outputs =
      align_node(fold_inputs(inputs, axes, size, stream()), options_, stream());
  std::vector<int> out_axes(outputs.size(), -1);
  for (int i : {0, 1}) {
    int N = outputs[i].shape(0) / size;
    outputs[i] = mx::unflatten(outputs[i], 0, {size, N}, stream());
    out_axes[i] = 0;
  }
  return {outputs, out_axes};
}

bool ForcedAlign::is_equivalent(const Primitive& other) const {
  return options_ == static_cast<const ForcedAlign&>(other).options_;
}

std::vector<mx::Shape> ForcedAlign::output_shapes(
    const std::vector<mx::array>& inputs) {
  std::vector<mx::Shape> shapes;
  for (const auto& out : align_node(inputs, options_, stream())) {
    shapes.push_back(out.shape());
  }
  return shapes;
}

} // namespace mlx_ctc
