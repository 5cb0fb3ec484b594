#include "ops/forced_align.h"

#include "mlx/memory.h"
#include "ops/cpu/align_cpu.h"
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
  static constexpr gpu::MakePlan make_plan = gpu::align_plan;

  Outputs outputs(const std::vector<mx::array>& inputs) {
    mx::Shape shape = {inputs[0].shape(1), inputs[0].shape(0)};
    Outputs outputs;
    outputs.add(shape, mx::int32);
    outputs.add(shape, computing_dtype(inputs[0].dtype()));
    if (on_gpu()) {
      auto tables = step(inputs)->tables();
      gpu::check_memory(op, problem(inputs), tables, mx::get_memory_limit());
      outputs.add(tables);
    }
    return outputs;
  }

  const char* name() const override {
    return "ForcedAlign";
  }

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    cpu::align(options_, stream(), inputs, outputs);
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
