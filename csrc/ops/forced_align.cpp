#include "ops/forced_align.h"

#include "ops/cpu/align_cpu.h"
#include "ops/gpu/ctc_gpu.h"
#include "ops/op.h"

namespace mlx_ctc {

namespace {

// outputs: alignments (N, T), scores (N, T), and on a GPU its kernels' tables.
class ForcedAlign : public OpWithoutDerivative<ForcedAlign, AlignOptions> {
 public:
  using OpWithoutDerivative::OpWithoutDerivative;

  static constexpr const char* op = "forced_align";
  static constexpr const char* no_derivative =
      "An alignment cannot be differentiated. Pass "
      "mx.stop_gradient(log_probs).";
  static constexpr int results = 2;

  static Outputs outputs(
      const std::vector<mx::array>& inputs,
      const AlignOptions& options,
      const mx::Stream& stream) {
    Outputs tables;
    if (stream.device == mx::Device::gpu) {
      tables = gpu::kept(inputs, options);
    }
    mx::Shape shape = {inputs[0].shape(1), inputs[0].shape(0)};
    tables.shapes.insert(tables.shapes.begin(), {shape, shape});
    tables.dtypes.insert(
        tables.dtypes.begin(), {mx::int32, computing_dtype(inputs[0].dtype())});
    return tables;
  }

  const char* name() const override {
    return "ForcedAlign";
  }

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    cpu::align(options_, stream(), inputs, outputs);
  }

  void eval_gpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    gpu::align(options_, stream(), inputs, outputs);
  }
};

} // namespace

std::vector<mx::array> forced_align(
    const mx::array& log_probs,
    const mx::array& targets,
    const mx::array& input_lengths,
    const mx::array& target_lengths,
    const AlignOptions& options,
    mx::StreamOrDevice s) {
  auto outputs = ForcedAlign::call(
      {log_probs, targets, input_lengths, target_lengths}, options, s);
  return {outputs[0], outputs[1]};
}

} // namespace mlx_ctc
