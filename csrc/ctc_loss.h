// The op: ctc_loss as a node of MLX's graph, on any device.
#pragma once

#include "mlx/array.h"
#include "mlx/primitives.h"
#include "mlx/utils.h"

namespace mlx_ctc {

namespace mx = mlx::core;

struct Options {
  int blank;
  bool with_logits;
  bool zero_infinity;

  bool operator==(const Options&) const = default;
};

/**
 * The loss of every sequence, (N).
 *
 * log_probs is (T, N, C) of any floating type (log-probabilities, or logits
 * with `with_logits`), targets (N, S), input_lengths and target_lengths (N),
 * all three int32. Labels and lengths out of range raise at evaluation on the
 * CPU and give NaN for that sequence on a GPU.
 */
mx::array ctc_loss(
    const mx::array& log_probs,
    const mx::array& targets,
    const mx::array& input_lengths,
    const mx::array& target_lengths,
    const Options& options,
    mx::StreamOrDevice s = {});

// inputs: log_probs, targets, input_lengths, target_lengths.
// outputs: the loss (N), and what the gradient can use again.
class CTCLoss : public mx::Primitive {
 public:
  CTCLoss(mx::Stream stream, const Options& options)
      : Primitive(stream), options_(options) {}

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override;
  void eval_gpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override;

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

  const char* name() const override {
    return "CTCLoss";
  }
  bool is_equivalent(const Primitive& other) const override;
  std::vector<mx::Shape> output_shapes(
      const std::vector<mx::array>& inputs) override;

 private:
  Options options_;
};

// inputs: CTCLoss's four, the loss's cotangent (N), and what CTCLoss saved.
// outputs: the gradient (T, N, C).
class CTCLossGradient : public mx::Primitive {
 public:
  CTCLossGradient(mx::Stream stream, const Options& options)
      : Primitive(stream), options_(options) {}

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override;
  void eval_gpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override;

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

  const char* name() const override {
    return "CTCLossGradient";
  }
  bool is_equivalent(const Primitive& other) const override;
  std::vector<mx::Shape> output_shapes(
      const std::vector<mx::array>& inputs) override;

 private:
  Options options_;
};

} // namespace mlx_ctc
