#include "ops/greedy_decode.h"

#include <cstdint>
#include <stdexcept>
#include <vector>

#include "ops/cpu/greedy_cpu.h"
#include "ops/op.h"

namespace mlx_ctc {

namespace {

// inputs: as of the other ops, without labels.
class GreedyDecode : public OpWithoutDerivative<GreedyDecode, GreedyOptions> {
 public:
  using OpWithoutDerivative::OpWithoutDerivative;

  static constexpr const char* op = "greedy_decode";
  static constexpr const char* no_derivative =
      "A labelling cannot be differentiated. Pass "
      "mx.stop_gradient(log_probs).";
  static constexpr int results = 5;

  Outputs outputs(const std::vector<mx::array>& inputs) {
    int T = inputs[0].shape(0), N = inputs[0].shape(1);
    auto real = computing_dtype(inputs[0].dtype());
    Outputs outputs;
    outputs.add({N, T}, mx::int32);
    outputs.add({N}, mx::int32);
    outputs.add({N}, real);
    outputs.add({N, T}, mx::int32);
    outputs.add({N, T}, real);
    return outputs;
  }

  const char* name() const override {
    return "GreedyDecode";
  }

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    cpu::greedy(options_, stream(), inputs, outputs);
  }

  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&)
      override {
    throw std::logic_error("[greedy_decode] This op is for the CPU.");
  }
};

} // namespace

std::vector<mx::array> greedy_decode(
    const mx::array& log_probs,
    const mx::array& input_lengths,
    const GreedyOptions& options,
    mx::StreamOrDevice s) {
  // Constants, which cost no evaluation.
  int N = input_lengths.size();
  std::vector<int32_t> zeros(N);
  mx::array no_labels(zeros.begin(), {N, 0});
  mx::array counts(zeros.begin(), {N});
  return GreedyDecode::call(
      {log_probs, no_labels, input_lengths, counts}, options, s);
}

} // namespace mlx_ctc
