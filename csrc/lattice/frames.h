// The frames of one sequence: their scores, and which labels they can be at.
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

// What the lattice's probabilities are to be divided by, multiplied up over the
// frames in double.
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

// The labels, and blanks after them, that an alignment can be at in one frame:
// each frame adds at most one label, after the start and before the end. The
// loops take whole groups around them; whatever else is in those has no path to
// the start, or none to the end, and neither has what they lead to.
struct Band {
  int64_t begin;
  int64_t end;
  int64_t row_end; // of the whole groups that hold all labels

  int64_t first_group() const {
    return round_down(begin);
  }

  int64_t last_group() const {
    return round_up(end);
  }
};

// How many classes there may be for the probabilities of all to be worth
// finding: few, or of which a target of S labels uses a good part.
constexpr int64_t most_dense(int64_t S) {
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
        is_dense(C <= most_dense(S)),
        with_logits(sequence.with_logits),
        labels(sequence.labels),
        blank(sequence.blank),
        scores(sequence, type, workspace),
        normalisers_(static_cast<Normaliser<Real>*>(saved.normalisers)) {
    padded_labels = workspace.take<int32_t>(round_up(S));
  }

  // Comes before everything else.
  void prepare() {
    for (int64_t i = 0; i < round_up(S); ++i) {
      padded_labels[i] = i < S ? labels[i] : blank;
      repeats_ += i > 0 && i < S && labels[i] == labels[i - 1];
    }
  }

  bool has_alignment() const {
    return S + repeats_ <= T;
  }

  Band band(int t) const {
    return {
        larger<int64_t>(0, S - (T - t)),
        smaller<int64_t>(S, t + 1),
        round_up(S)};
  }

  // The whole groups of labels that some frame next to t can be at, among as
  // many frames, from a whole number of them on, as a group has group_size.
  std::pair<int64_t, int64_t> groups_around(int t) const {
    int begin = round_down(t);
    int end = smaller<int>(begin + group_size, T);
    return {band(begin).first_group(), band(end - 1).last_group()};
  }

  Real blank_score(int t) const {
    return scores.at(t, blank);
  }

  // Copies the scores of the labels [begin, end), of the blank past the last.
  void gather(int t, int64_t begin, int64_t end, Real* out) const {
    scores.gather(t, padded_labels + begin, end - begin, out + begin);
  }

  // Of logits only.
  Normaliser<Real>& normaliser(int t) const {
    return normalisers_[t];
  }

  // Finds and saves frame t's normaliser.
  void normalise(int t, Divisor& divisor) const {
    auto z = find_normaliser(scores.frame(t), C, scores.stored(t + 1));
    normaliser(t) = {Real(z.max), Real(z.sum)};
    divisor.multiply(z.sum, z.max * log2_e - log2_scale(t));
  }

  // Does so for the frames [begin, end), if they are logits.
  void normalise(int begin, int end, Divisor& divisor) const {
    for (int t = begin; t < end && with_logits; ++t) {
      normalise(t, divisor);
    }
  }

  // log2 of what a frame's probabilities are unnormalised of in the lattice.
  double log2_scale(int t) const {
    return with_logits ? whole_log2(normaliser(t).max) : 0;
  }

  // log2 exp(x), whole, unless it is so great that this makes no difference.
  static double whole_log2(double x) {
    double scale = x * log2_e;
    return std::abs(scale) < 0x1p20 ? std::rint(scale) : scale;
  }

  // Whether each frame has a log-probability for the blank and every label,
  // also where no alignment passes. One comparison finds both NaN and +inf. Of
  // logits the divisor knows.
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
  const bool is_dense; // all classes count, not the target's alone
  const bool with_logits;
  const int32_t* const labels; // (S)
  int32_t* padded_labels; // (S) and the blank, for whole groups
  const int blank;
  const Scores<Real> scores;

 private:
  Normaliser<Real>* const normalisers_; // (T)
  int64_t repeats_ = 0; // equal labels side by side
};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
