#include "ops/ctc_posteriors.h"

#include "ops/cpu/ctc_cpu.h"
#include "ops/op.h"

namespace mlx_ctc {

namespace {

// outputs: the posteriors, and tables that they are made from.
class CTCPosteriors
    : public OpWithoutDerivative<CTCPosteriors, PosteriorOptions> {
 public:
  using OpWithoutDerivative::OpWithoutDerivative;

  static constexpr const char* op = "ctc_posteriors";
  static constexpr const char* no_derivative =
      "Posteriors cannot be differentiated. Pass mx.stop_gradient(log_probs).";
  static constexpr int results = 1;
  static constexpr gpu::MakePlan make_plan = gpu::posteriors_plan;

  Outputs outputs(const std::vector<mx::array>& inputs) {
    const auto& x = inputs[0];
    int width = options_.by_class ? x.shape(2) : inputs[1].shape(1) + 1;
    Outputs outputs;
    outputs.add({x.shape(1), x.shape(0), width}, computing_dtype(x.dtype()));
    if (on_gpu()) {
      outputs.add(step(inputs)->tables());
    } else {
      outputs.add(cpu::saved_outputs(inputs, options_.loss()));
    }
    return outputs;
  }

  const char* name() const override {
    return "CTCPosteriors";
  }

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    cpu::posteriors(options_, stream(), inputs, outputs);
  }
};

} // namespace

mx::array ctc_posteriors(
    const mx::array& log_probs,
    const mx::array& targets,
    const mx::array& input_lengths,
    const mx::array& target_lengths,
    const PosteriorOptions& options,
    mx::StreamOrDevice s) {
  return CTCPosteriors::call(
      {log_probs, targets, input_lengths, target_lengths}, options, s)[0];
}

} // namespace mlx_ctc
