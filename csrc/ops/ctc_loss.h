// The op: ctc_loss as a node of MLX's graph, on any device.
#pragma once

#include "mlx/array.h"
#include "mlx/utils.h"

namespace mlx_ctc {

namespace mx = mlx::core;

struct Options {
  int blank;
  bool with_logits;
  bool zero_infinity;
  bool normalized = true; // exp(log_probs) sums to 1 in each frame

  bool operator==(const Options&) const = default;
};

/**
 * The loss of every sequence, (N).
 *
 * log_probs is (T, N, C) of any floating type (log-probabilities, or logits
 * with `with_logits`, or any scores without `normalized`), targets (N, S),
 * input_lengths and target_lengths (N), all three int32. A sequence with a
 * label or a length out of range has a loss and a gradient of NaN, on every
 * device.
 */
mx::array ctc_loss(
    const mx::array& log_probs,
    const mx::array& targets,
    const mx::array& input_lengths,
    const mx::array& target_lengths,
    const Options& options,
    mx::StreamOrDevice s = {});

} // namespace mlx_ctc
