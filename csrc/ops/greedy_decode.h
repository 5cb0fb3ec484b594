// The op: greedy_decode as a node of MLX's graph, on the CPU. On a GPU it is
// made of MLX's own ops, in Python.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "mlx/array.h"
#include "mlx/utils.h"

namespace mlx_ctc {

namespace mx = mlx::core;

struct GreedyOptions {
  int blank;
  bool with_logits;

  bool operator==(const GreedyOptions&) const = default;
};

/**
 * Of log_probs (T, N, C) and input_lengths (N), int32: the labels of the best
 * path (N, T), followed by blanks, their number (N), the path's log-probability
 * (N), and the first frame (N, T) and the mean probability (N, T) of each
 * label, followed by zeros.
 *
 * A sequence with an invalid score or length has no labels and is NaN.
 */
std::vector<mx::array> greedy_decode(
    const mx::array& log_probs,
    const mx::array& input_lengths,
    const GreedyOptions& options,
    mx::StreamOrDevice s = {});

/**
 * The same of one sequence's log_probs (T, C), without N, or of a batch's, at
 * once and on the calling thread: a node of the graph takes longer than few
 * scores. `frames` counts for every sequence; without it, all T.
 *
 * Nothing for more scores, for any that are not known yet, where MLX's default
 * device is a GPU, and for arguments that greedy_decode() refuses.
 */
std::optional<std::vector<mx::array>> greedy_decode_at_once(
    const mx::array& log_probs,
    std::optional<int64_t> frames,
    int64_t blank,
    bool with_logits,
    bool batch_first);

} // namespace mlx_ctc
