// Prefix beam search: the most probable labellings of a sequence (Graves et al.
// 2006, section 3.2; Hannun et al. 2014), on the CPU.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace mlx_ctc {

struct BeamOptions {
  int beam_width; // prefixes kept after each frame
  int blank;
  int nbest; // labellings returned
  int max_labels; // labels tried in a frame
  double label_threshold; // nats that a tried label may be below the best class
  double beam_threshold; // nats that a kept prefix may be below the best
};

struct Hypothesis {
  std::vector<int> labels;
  double score; // log p(labels), and what the scorer added
};

// What extending a prefix by a label adds to its score; by label -1, ending it.
using Scorer = std::function<double(const std::vector<int>& prefix, int label)>;

// One of the scores of a batch.
struct Place {
  int64_t sequence;
  int64_t frame;
  int64_t label;
  float value;
};

/**
 * The first finite value of log_probs (N, T, C) that is above `most`, in the
 * frames that the lengths (N) leave.
 */
std::optional<Place> find_above(
    float most,
    const float* log_probs,
    int64_t T,
    int64_t C,
    const std::vector<int>& lengths);

/**
 * The best labellings of every sequence, the most probable first.
 *
 * log_probs is (N, T, C), contiguous. A sequence that reads a NaN or +inf has
 * one empty labelling with a score of NaN; one without probability has none.
 * Sequences are spread over threads, unless there is a scorer: it is called
 * from the calling thread. The results are incomplete if `stop`, looked at in
 * each frame, becomes true.
 */
std::vector<std::vector<Hypothesis>> beam_search(
    const float* log_probs,
    int64_t T,
    int64_t C,
    const std::vector<int>& lengths, // (N)
    const BeamOptions& options,
    const Scorer& scorer,
    const std::atomic<bool>& stop);

} // namespace mlx_ctc
