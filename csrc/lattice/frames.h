// The frames of one sequence: their scores, their normalisers, and which labels
// they can be at.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "lattice/extended_states.h"
#include "lattice/scores.h"
#include "lattice/sequence.h"
#include "lattice/softmax.h"
#include "lattice/target.h"
#include "simd/exponential.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

// The product of the frames' softmax normalisers. For logits the recursion uses
// exp(score) / 2^n, with n an integer for each frame, in place of the softmax:
// its z is to be divided by this product.
struct Divisor {
  Extended<double> sums = {1.0, 0};
  double log2 = 0;
  bool is_valid = true;

  void multiply(double sum, double by_log2) {
    sums = normalised(sums * Extended<double>{sum, 0});
    log2 += by_log2;
    is_valid &= sum < std::numeric_limits<double>::infinity();
  }
};

// The labels that an alignment can be at in one frame, [begin, end), with the
// blanks after them: a frame adds at most one label, so that label i is reached
// in frame i at the earliest and left so late that the other labels still fit.
//
// The loops take the whole groups around the band. The states they compute
// beyond it are harmless: no path leads to them from the start, or none from
// them to the end, so that their alpha * beta is 0.
struct Band {
  int64_t begin;
  int64_t end;
  int64_t row_end; // end of the groups that hold all labels

  int64_t groups_begin() const {
    return round_down(begin);
  }

  int64_t groups_end() const {
    return round_up(end);
  }
};

// The most classes for which the probabilities of all classes are computed. For
// more, only those of the S labels and the blank are. 96, because a short row
// costs less than gathering from it; twice the labels, because a target then
// uses a good part of the classes.
constexpr int64_t most_dense_classes(int64_t S) {
  return larger<int64_t>(96, 2 * (S + 1));
}

template <typename Real>
class Frames {
 public:
  Frames(
      const Sequence& sequence,
      const Saved& saved,
      const ElementType<Real>& type,
      Workspace& workspace)
      : sequence(sequence),
        T(sequence.frames),
        C(sequence.classes),
        S(sequence.target_length),
        segment_frames(smaller(saved.segment_frames, larger(T, 1))),
        is_dense(C <= most_dense_classes(S)),
        with_logits(sequence.with_logits),
        labels(sequence.labels),
        blank(sequence.blank),
        scores(sequence, type, workspace),
        normalisers_(static_cast<Normaliser<Real>*>(saved.normalisers)) {
    padded_labels = workspace.take<int32_t>(round_up(S));
  }

  // Reads the target. Call it first.
  void prepare() {
    repeats_ = 0;
    for (int64_t i = 0; i < round_up(S); ++i) {
      padded_labels[i] = i < S ? labels[i] : blank;
      repeats_ += i > 0 && i < S && labels[i] == labels[i - 1];
    }
  }

  // Equal neighbours need a blank between them, one frame more.
  bool has_alignment() const {
    return S + repeats_ <= T;
  }

  Band band(int t) const {
    return {
        larger<int64_t>(0, S - (T - t)),
        smaller<int64_t>(S, t + 1),
        round_up(S)};
  }

  // The whole groups of labels that the frames around t can be at: the aligned
  // `group_size` frames to which t belongs.
  std::pair<int64_t, int64_t> groups_around(int t) const {
    int begin = round_down(t);
    int end = smaller<int>(begin + group_size, T);
    return {band(begin).groups_begin(), band(end - 1).groups_end()};
  }

  Real blank_score(int t) const {
    return scores.at(t, blank);
  }

  // Copies the scores of the labels [begin, end) in frame t; past the last
  // label those of the blank.
  void gather(int t, int64_t begin, int64_t end, Real* out) const {
    scores.gather(t, padded_labels + begin, end - begin, out + begin);
  }

  // Frame t's saved normaliser, for logits only.
  Normaliser<Real>& normaliser(int t) const {
    return normalisers_[t];
  }

  // 1 - softmax of class c in frame t, without the rounding of the softmax. Its
  // score is the frame's greatest, and its softmax between 1/2 and 2.
  Real rest_of_greatest(int t, int32_t c) const {
    if (!with_logits) {
      return -expm1_near_zero(scores.at(t, c));
    }
    auto found = normaliser(t);
    return found.rest / found.sum();
  }

  // Finds and saves frame t's normaliser, and multiplies the divisor by it.
  void normalise(int t, Divisor& divisor) const {
    auto found = compute_normaliser(scores.frame(t), C, scores.stored(t + 1));
    normaliser(t) = {Real(found.max), Real(found.rest)};
    divisor.multiply(found.scaled_sum, found.log2_sum);
  }

  // The same for the frames [begin, end), if they are logits.
  void normalise(int begin, int end, Divisor& divisor) const {
    for (int t = begin; t < end && with_logits; ++t) {
      normalise(t, divisor);
    }
  }

  // The recursion uses exp(score) / 2^log2_scale(t) as frame t's probabilities:
  // for logits the greatest is then near 1.
  double log2_scale(int t) const {
    return with_logits ? log2_scale_of(normaliser(t).max) : 0;
  }

  // False if the log-probability of the blank or of a label is NaN or +inf in
  // one of the frames, also where no alignment passes: x < infinity is false
  // for both. Returns true for logits: Divisor::is_valid finds those of
  // all of their classes.
  bool is_valid(int begin, int end) const {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    int valid = 1;
    for (int t = begin; t < end && !with_logits; ++t) {
      valid &= blank_score(t) < infinity;
      for (int64_t i = 0; i < S; i += 64) {
        Real x[64];
        int64_t count = smaller<int64_t>(S - i, 64);
        scores.gather(t, labels + i, count, x);
        for (int64_t j = 0; j < count; ++j) {
          valid &= x[j] < infinity;
        }
      }
    }
    return valid != 0;
  }

  const Sequence& sequence;
  const int T;
  const int64_t C;
  const int64_t S;
  const int segment_frames;
  const bool is_dense; // probabilities of all classes are computed
  const bool with_logits;
  const int32_t* const labels; // (S)
  int32_t* padded_labels; // (S), then the blank up to a whole group
  const int blank;
  const Scores<Real> scores;

 private:
  Normaliser<Real>* const normalisers_; // (T)
  int64_t repeats_ = 0; // labels equal to the label before
};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
