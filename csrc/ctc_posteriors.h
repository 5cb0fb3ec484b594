// The op: ctc_posteriors as a node of MLX's graph.
#pragma once

#include <vector>

#include "ctc_loss.h"
#include "mlx/array.h"
#include "mlx/primitives.h"
#include "mlx/utils.h"

namespace mlx_ctc {

struct PosteriorOptions {
  int blank;
  bool with_logits;
  bool by_class;

  bool operator==(const PosteriorOptions&) const = default;

  // Of the loss whose lattice this is.
  Options loss() const {
    return {blank, with_logits, false};
  }
};

/**
 * gamma: how probable it is, given the target, that a frame says the blank or
 * each of the labels (N, T, S + 1), the blank first; or each class (N, T, C).
 *
 * The arguments are ctc_loss's. Frames past a sequence's end are 0, and so is a
 * sequence without an alignment; one that reads a NaN or an infinite score is
 * NaN.
 */
mx::array ctc_posteriors(
    const mx::array& log_probs,
    const mx::array& targets,
    const mx::array& input_lengths,
    const mx::array& target_lengths,
    const PosteriorOptions& options,
    mx::StreamOrDevice s = {});

// inputs: log_probs, targets, input_lengths, target_lengths.
// outputs: the posteriors, and tables that they are made from.
class CTCPosteriors : public mx::Primitive {
 public:
  CTCPosteriors(mx::Stream stream, const PosteriorOptions& options)
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
    return "CTCPosteriors";
  }
  bool is_equivalent(const Primitive& other) const override;
  std::vector<mx::Shape> output_shapes(
      const std::vector<mx::array>& inputs) override;

 private:
  PosteriorOptions options_;
};

} // namespace mlx_ctc
