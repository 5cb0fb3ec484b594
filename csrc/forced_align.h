// The op: forced_align as a node of MLX's graph.
#pragma once

#include <vector>

#include "mlx/array.h"
#include "mlx/primitives.h"
#include "mlx/utils.h"

namespace mlx_ctc {

namespace mx = mlx::core;

struct AlignOptions {
  int blank;
  bool with_logits;

  bool operator==(const AlignOptions&) const = default;
};

/**
 * The most probable alignment of every sequence: its class in each frame
 * (N, T), int32, and the log-probabilities of those (N, T).
 *
 * The arguments are ctc_loss's. Frames past a sequence's end have the blank
 * and 0. A sequence without an alignment has blanks and -inf; one that reads a
 * NaN or an infinite score, blanks and NaN.
 */
std::vector<mx::array> forced_align(
    const mx::array& log_probs,
    const mx::array& targets,
    const mx::array& input_lengths,
    const mx::array& target_lengths,
    const AlignOptions& options,
    mx::StreamOrDevice s = {});

// inputs: log_probs, targets, input_lengths, target_lengths.
// outputs: alignments (N, T), scores (N, T), and on a GPU its kernels' tables.
class ForcedAlign : public mx::Primitive {
 public:
  ForcedAlign(mx::Stream stream, const AlignOptions& options)
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
    return "ForcedAlign";
  }
  bool is_equivalent(const Primitive& other) const override;
  std::vector<mx::Shape> output_shapes(
      const std::vector<mx::array>& inputs) override;

 private:
  AlignOptions options_;
};

} // namespace mlx_ctc
