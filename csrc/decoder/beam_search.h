// Prefix beam search: the most probable labellings of a sequence (Graves et al.
// 2006, section 3.2; Hannun et al. 2014), on the CPU.
#pragma once

#include <atomic>
#include <vector>

#include "decoder/hotwords.h"
#include "decoder/labelling.h"
#include "decoder/scorers.h"
#include "decoder/scores.h"

namespace mlx_ctc {

struct BeamOptions {
  int beam_width; // prefixes kept after each frame
  int blank;
  int nbest; // labellings returned
  int max_labels; // labels tried in a frame
  double label_threshold; // nats that a tried label may be below the best class
  double beam_threshold; // nats that a kept prefix may be below the best
  bool rescore; // with all paths of a labelling, not only those searched
};

struct Hypothesis {
  Labels labels;
  double score; // log p(labels), and what scorers added
  Times times;
};

/**
 * The best labellings of every sequence, the most probable first.
 *
 * A sequence that reads a NaN or +inf has one empty labelling with a score of
 * NaN; one without probability has none. Sequences are spread over threads,
 * unless there is a scorer: it is called from the calling thread. The results
 * are incomplete if `stop` becomes true. It is looked at in each frame, and
 * then before each labelling is rescored.
 */
std::vector<std::vector<Hypothesis>> beam_search(
    const Scores& scores,
    const std::vector<int>& lengths, // (N)
    const BeamOptions& options,
    const Scorers& scorers,
    const Hotwords* hotwords, // if there are any
    const std::atomic<bool>& stop);

} // namespace mlx_ctc
