// The frames of one sequence: their scores, and which labels they can be at.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include "cpu/element.h"
#include "cpu/exponential.h"
#include "cpu/lattice.h"
#include "cpu/sequence.h"
#include "cpu/softmax.h"

namespace {

using mlx_ctc::cpu::Saved;
using mlx_ctc::cpu::Sequence;

template <typename In>
class Frames {
 public:
  using Real = typename Computing<In>::Real;

  Frames(
      const Sequence& sequence,
      const Saved& saved,
      LatticeWorkspace& workspace)
      : T(sequence.frames),
        C(sequence.classes),
        S(sequence.target_length),
        run(smaller(saved.interval, larger(T, 1))),
        with_logits(sequence.with_logits),
        labels(sequence.labels),
        blank(sequence.blank),
        scores_(static_cast<const In*>(sequence.log_probs)),
        frame_stride_(sequence.frame_stride),
        class_stride_(sequence.class_stride),
        normalisers_(static_cast<Normaliser<Real>*>(saved.normalisers)) {
    offsets_ = workspace.take<int64_t>(row_pitch(S));
    row_ = workspace.take<Real>(C);
    for (int64_t i = 0; i < S; ++i) {
      offsets_[i] = labels[i] * class_stride_;
      repeats_ += i > 0 && labels[i] == labels[i - 1];
    }
    for (int64_t i = S; i < round_up(S); ++i) {
      offsets_[i] = blank * class_stride_;
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
  // many frames, from a whole number of them on, as a group has lanes.
  std::pair<int64_t, int64_t> groups_around(int t) const {
    int begin = t - t % lanes;
    int end = smaller<int>(begin + lanes, T);
    return {band(begin).first_group(), band(end - 1).last_group()};
  }

  // A blank between equal labels cannot be skipped.
  bool skippable(int64_t i) const {
    return i > 0 && i < S && labels[i] != labels[i - 1];
  }

  const In* scores(int t) const {
    return scores_ + t * frame_stride_;
  }

  Real blank_score(int t) const {
    return number(scores(t)[blank * class_stride_]);
  }

  // Copies the scores of the labels [begin, end), of the blank past the last.
  void gather(int t, int64_t begin, int64_t end, Real* out) const {
    const In* x = scores(t);
    const int64_t* offsets = offsets_;
    UNROLLED
    for (int64_t i = begin; i < end; ++i) {
      out[i] = number(x[offsets[i]]);
    }
  }

  // Frame t's scores side by side as Real, in place where they already are.
  const Real* frame(int t) const {
    const In* x = scores(t);
    int64_t stride = class_stride_;
    if constexpr (std::is_same_v<In, Real>) {
      if (stride == 1) {
        return x;
      }
    }
    if (stride == 1) {
      for (int64_t c = 0; c < C; ++c) {
        row_[c] = number(x[c]);
      }
    } else {
      for (int64_t c = 0; c < C; ++c) {
        row_[c] = number(x[c * stride]);
      }
    }
    return row_;
  }

  // Memory for one frame.
  Real* row() const {
    return row_;
  }

  // Of logits only.
  Normaliser<Real>& normaliser(int t) const {
    return normalisers_[t];
  }

  // log2 of what a frame's probabilities are multiples of in the lattice:
  // whole, unless it is so great that this makes no difference.
  double log2_scale(int t) const {
    double scale = with_logits ? normaliser(t).max * log2_e : 0;
    return std::abs(scale) < 0x1p20 ? std::rint(scale) : scale;
  }

  // Whether each frame has a probability for the blank and every label, also
  // where no alignment passes. One comparison finds both NaN and +inf.
  bool is_valid(int begin, int end) const {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    int valid = 1;
    for (int t = begin; t < end; ++t) {
      if (with_logits) {
        valid &= normaliser(t).sum < infinity;
        continue;
      }
      const In* x = scores(t);
      valid &= blank_score(t) < infinity;
      for (int64_t i = 0; i < S; ++i) {
        valid &= number(x[offsets_[i]]) < infinity;
      }
    }
    return valid != 0;
  }

  const int T;
  const int64_t C;
  const int64_t S;
  const int run; // frames in a run
  const bool with_logits;
  const int32_t* const labels; // (S)
  const int blank;

 private:
  const In* const scores_;
  const int64_t frame_stride_;
  const int64_t class_stride_;
  Normaliser<Real>* const normalisers_; // (T)
  int64_t* offsets_; // (S) of the labels' scores in a frame, in elements
  Real* row_; // (C) one frame, where it cannot be used in place
  int64_t repeats_ = 0; // equal labels side by side
};

} // namespace
