// The inputs of one sequence. Their pointers have types that depend on the
// sizes of the batch (pointers.h), so that those are template parameters.

#include "pointers.h"

template <typename Scores, typename Target, typename Normalisers>
struct Sequence {
  using ScoresPointer = Scores;

  int T_n; // input length
  int S_n; // target length
  int blank; // its class
  Scores scores; // (T, C)
  int64_t frame_stride;
  int64_t class_stride;
  Target target; // (S)
  int64_t target_stride;
  Normalisers normalisers; // (T, 2) of logits: see normalisers.metal

  // (T), with a stride of frame_stride.
  METAL_FUNC Scores scores_of_class(int c) const {
    return scores + c * class_stride;
  }
  METAL_FUNC float score(int t, int c) const {
    return float(scores[t * frame_stride + c * class_stride]);
  }
  METAL_FUNC int class_of_label(int i) const {
    return target[i * target_stride];
  }
  METAL_FUNC float greatest_logit(int t) const {
    return normalisers[int64_t(t) * 2];
  }
  // The sum of exp(logit - greatest logit) over the other logits; NaN if one is
  // invalid.
  METAL_FUNC float softmax_rest(int t) const {
    return normalisers[int64_t(t) * 2 + 1];
  }
};

// The n-th sequence of a batch of T frames.
template <
    typename Scores,
    typename Targets,
    typename Normalisers,
    typename ScoresStrides,
    typename TargetsStrides>
METAL_FUNC Sequence<Scores, Targets, Normalisers> sequence_of(
    int n,
    int T,
    int input_length,
    int target_length,
    int blank,
    Scores log_probs, // (T, N, C)
    ScoresStrides log_probs_strides,
    Targets targets, // (N, S)
    TargetsStrides targets_strides,
    Normalisers normalisers) { // (N, T, 2)
  return Sequence<Scores, Targets, Normalisers>{
      input_length,
      target_length,
      blank,
      log_probs + n * log_probs_strides[1],
      log_probs_strides[0],
      log_probs_strides[2],
      targets + n * targets_strides[0],
      targets_strides[1],
      normalisers + int64_t(n) * T * 2};
}

// Whether a path may pass directly from label `from` to label `to`, without the
// blank between them: both exist and are different classes.
template <typename Sequence>
METAL_FUNC bool
may_skip_blank(thread const Sequence& sequence, int from, int to) {
  const int S_n = sequence.S_n;
  const bool are_labels = from >= 0 && from < S_n && to >= 0 && to < S_n;
  return are_labels &&
      sequence.class_of_label(from) != sequence.class_of_label(to);
}
