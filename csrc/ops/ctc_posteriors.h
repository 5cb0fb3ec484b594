// The op: ctc_posteriors as a node of MLX's graph.
#pragma once

#include "mlx/array.h"
#include "mlx/utils.h"
#include "ops/ctc_loss.h"

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
 * gamma: how probable it is, given the target, that a frame is the blank or
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

} // namespace mlx_ctc
