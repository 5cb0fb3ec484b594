#include "ops/greedy_decode.h"

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "ops/cpu/greedy_cpu.h"
#include "ops/integers.h"
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

  static Outputs outputs(const std::vector<mx::array>& inputs) {
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
};

// The inputs of the op. Those that it adds are constants, which cost no
// evaluation.
std::vector<mx::array> inputs_of(
    const mx::array& log_probs,
    const mx::array& input_lengths) {
  int N = input_lengths.size();
  std::vector<int32_t> zeros(N);
  mx::array no_labels(zeros.begin(), {N, 0});
  mx::array counts(zeros.begin(), {N});
  return {log_probs, no_labels, input_lengths, counts};
}

// Known scores (T, C), (T, N, C) or (N, T, C) as (T, N, C).
mx::array as_batch(const mx::array& scores, bool batch_first) {
  auto shape = scores.shape();
  auto strides = scores.strides();
  if (scores.ndim() == 2) {
    shape.insert(shape.begin() + 1, 1);
    strides.insert(strides.begin() + 1, 0);
  } else if (batch_first) {
    std::swap(shape[0], shape[1]);
    std::swap(strides[0], strides[1]);
  }
  mx::array batch(shape, scores.dtype(), nullptr, {});
  batch.copy_shared_buffer(scores, strides, {}, scores.data_size());
  return batch;
}

// The first axis, N, taken off.
mx::Shape of_one(const mx::Shape& shape) {
  return {shape.begin() + 1, shape.end()};
}

} // namespace

std::vector<mx::array> greedy_decode(
    const mx::array& log_probs,
    const mx::array& input_lengths,
    const GreedyOptions& options,
    mx::StreamOrDevice s) {
  return GreedyDecode::call(inputs_of(log_probs, input_lengths), options, s);
}

std::optional<std::vector<mx::array>> greedy_decode_at_once(
    const mx::array& log_probs,
    std::optional<int64_t> frames,
    int64_t blank,
    bool with_logits,
    bool batch_first) {
  bool is_single = log_probs.ndim() == 2;
  if ((!is_single && log_probs.ndim() != 3) ||
      log_probs.nbytes() > cpu::greedy_task_bytes || !is_known(log_probs) ||
      !mx::issubdtype(log_probs.dtype(), mx::floating) ||
      mx::default_device() != mx::Device::cpu) {
    return std::nullopt;
  }
  auto batch = as_batch(log_probs, batch_first);
  int T = batch.shape(0), N = batch.shape(1), C = batch.shape(2);
  int64_t length = frames.value_or(T);
  if (length < 0 || length > T || blank < -C || blank >= C) {
    return std::nullopt;
  }
  std::vector<int32_t> lengths(N, length);
  auto inputs = inputs_of(batch, mx::array(lengths.begin(), {N}));
  GreedyOptions options{static_cast<int>((blank + C) % C), with_logits};
  auto [shapes, dtypes] = GreedyDecode::outputs(inputs);
  std::vector<mx::array> outputs;
  for (size_t i = 0; i < shapes.size(); ++i) {
    auto shape = is_single ? of_one(shapes[i]) : shapes[i];
    outputs.emplace_back(
        std::move(shape), dtypes[i], nullptr, std::vector<mx::array>{});
  }
  cpu::greedy_at_once(options, inputs, outputs);
  return outputs;
}

} // namespace mlx_ctc
