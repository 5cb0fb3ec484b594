// The op: forced_align as a node of MLX's graph.
#pragma once

#include <vector>

#include "mlx/array.h"
#include "mlx/utils.h"

namespace mlx_ctc {

namespace mx = mlx::core;

struct AlignOptions {
  int blank;
  bool with_logits;
  // Frames between two checkpoints on the CPU; 0: as many as suit the shapes.
  int segment_frames = 0;

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

} // namespace mlx_ctc
