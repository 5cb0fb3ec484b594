#include "forced_align.h"

#include "arguments.h"
#include "cpu/align_cpu.h"
#include "mlx/ops.h"

namespace mlx_ctc {

namespace {

std::vector<mx::array> align_node(
    const std::vector<mx::array>& inputs,
    const AlignOptions& options,
    const mx::Stream& stream) {
  mx::Shape shape = {inputs[0].shape(1), inputs[0].shape(0)};
  auto dtype = inputs[0].dtype() == mx::float64 ? mx::float64 : mx::float32;
  return mx::array::make_arrays(
      {shape, shape},
      {mx::int32, dtype},
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
  return align_node(inputs, options, stream);
}

void ForcedAlign::eval_cpu(
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  cpu::align(options_, stream(), inputs, outputs);
}

void ForcedAlign::eval_gpu(
    const std::vector<mx::array>&,
    std::vector<mx::array>&) {
  throw std::runtime_error(
      "[forced_align] Expected a CPU stream but got a GPU's. Pass "
      "stream=mx.cpu.");
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
  for (auto& out : outputs) {
    out = mx::unflatten(out, 0, {size, out.shape(0) / size}, stream());
  }
  return {outputs, {0, 0}};
}

bool ForcedAlign::is_equivalent(const Primitive& other) const {
  return options_ == static_cast<const ForcedAlign&>(other).options_;
}

std::vector<mx::Shape> ForcedAlign::output_shapes(
    const std::vector<mx::array>& inputs) {
  mx::Shape shape = {inputs[0].shape(1), inputs[0].shape(0)};
  return {shape, shape};
}

} // namespace mlx_ctc
