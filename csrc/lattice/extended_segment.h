// The forward-backward recursion over the frames of a segment in numbers of
// extended range: for any scores. This is the recursion in its plain form;
// scaled_segment.h has the faster one.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>

#include "lattice/class_sums.h"
#include "lattice/frames.h"
#include "simd/blocks.h"
#include "simd/exponential.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

// Frames from one normalisation of the mantissas to the next. A frame adds up
// to three mantissas and multiplies by one below 2: they grow at most sixfold.
constexpr int normalising_interval = 4;

// a with its exponent in range, and in the frames that normalise its mantissa.
template <bool normalise, typename Real>
inline Extended<Real> kept_in_range(Extended<Real> a) {
  return normalise ? normalised(a) : saturated(a);
}

// One frame of the forward recursion, equation 6: alpha(t), `next`, from
// alpha(t - 1), `previous`, and the probabilities of the blank and the labels
// in frame t:
//
//   next blank i = (blank i + label i) * p_blank
//   next label i = (label i + blank i-1 + label i-1) * p_label i
//
// Blank i is the one after label i, and blank -1 the first: l' of the paper is
// l'(1) = blank -1, l'(2 i + 2) = label i, l'(2 i + 3) = blank i. The last term
// is left out if label i-1 is the same class. skip_exponent[i] is 0 if label
// i + 1 may follow label i without a blank, else zero_exponent, which makes
// that term 0.
template <bool normalise, typename Real>
void alpha_step(
    Band band,
    const Int<Real>* skip_exponent,
    ExtendedStates<Real> previous,
    Extended<Real> p_blank,
    ExtendedRow<Real> p_label,
    ExtendedStates<Real> next) {
  int64_t begin = band.groups_begin();
  int64_t end = band.groups_end();
  next.clear(begin - 1, begin);
  if (begin == 0) {
    next.blank.set(-1, kept_in_range<normalise>(previous.blank[-1] * p_blank));
  }
  next.clear(end, smaller(end + group_size, band.row_end));
  INDEPENDENT
  for (int64_t i = begin; i < end; ++i) {
    auto blank = previous.blank[i];
    auto label = previous.label[i];
    auto blank_before = previous.blank[i - 1];
    auto label_before = previous.label[i - 1];
    label_before.e += skip_exponent[i - 1];
    auto to_blank = (blank + label) * p_blank;
    auto to_label = sum(label, blank_before, label_before) * p_label[i];
    next.blank.set(i, kept_in_range<normalise>(to_blank));
    next.label.set(i, kept_in_range<normalise>(to_label));
  }
}

// One frame of the backward recursion, equation 10: beta_p(t), `next`, from
// beta_p(t + 1), `beta_p`. beta(t) is the sum of the beta_p(t + 1) that a state
// leads to; beta_p(t) is beta(t) times the probability of frame t. In the paper
// beta has that factor; without it gamma = alpha * beta / z needs no division.
// gamma is stored in place of alpha's mantissas.
template <bool normalise, typename Real>
void beta_step(
    Band band,
    const Int<Real>* skip_exponent,
    ExtendedStates<Real> alpha,
    Extended<Real> p_blank,
    ExtendedRow<Real> p_label,
    Extended<Real> inverse_z,
    ExtendedStates<Real> beta_p,
    ExtendedStates<Real> next) {
  auto posterior = [&](Extended<Real> alpha, Extended<Real> beta) {
    auto gamma = alpha * beta * inverse_z;
    return gamma.m * power_of_two<Real>(gamma.e);
  };
  int64_t begin = band.groups_begin();
  int64_t end = band.groups_end();
  if (begin == 0) {
    auto beta_blank = beta_p.blank[-1] + beta_p.label[0];
    alpha.blank.m[-1] = posterior(alpha.blank[-1], beta_blank);
    next.blank.set(-1, kept_in_range<normalise>(beta_blank * p_blank));
  } else {
    alpha.blank.m[-1] = 0;
    next.clear(begin - group_size, begin);
  }
  INDEPENDENT
  for (int64_t i = begin; i < end; ++i) {
    auto blank = beta_p.blank[i];
    auto label = beta_p.label[i];
    auto label_after = beta_p.label[i + 1];
    auto beta_blank = blank + label_after;
    label_after.e += skip_exponent[i];
    auto beta_label = sum(label, blank, label_after);
    next.blank.set(i, kept_in_range<normalise>(beta_blank * p_blank));
    next.label.set(i, kept_in_range<normalise>(beta_label * p_label[i]));
    alpha.blank.m[i] = posterior(alpha.blank[i], beta_blank);
    alpha.label.m[i] = posterior(alpha.label[i], beta_label);
  }
}

// The probabilities of the blank and the labels in the frames of a segment,
// with mantissas of type `State`.
template <typename Real, typename State>
class ExtendedProbabilities {
 public:
  ExtendedProbabilities(const Frames<Real>& frames, Workspace& workspace)
      : frames_(frames) {
    int64_t pitch = row_pitch(frames.S);
    skip_exponent = workspace.take<Int<State>>(pitch) + group_size;
    scores_ = workspace.take<Real>(pitch);
    blank_ = take_row<State>(workspace, row_pitch(frames.segment_frames));
    label_ = take_rows<State>(workspace, frames.segment_frames, pitch);
  }

  // Computes those of the frames [begin, end); for logits
  // exp(score) / 2^log2_scale.
  void compute(int begin, int end) {
    begin_ = begin;
    for (int64_t i = -1; i < round_up(frames_.S); ++i) {
      skip_exponent[i] =
          may_skip_blank(frames_.sequence, i + 1) ? 0 : zero_exponent;
    }
    for (int t = begin; t < end; ++t) {
      double scale = frames_.log2_scale(t);
      int64_t first = frames_.band(t).groups_begin();
      int64_t last = frames_.band(t).groups_end();
      int64_t labels_end = smaller(last, frames_.S);
      frames_.gather(t, first, labels_end, scores_);
      for (int64_t i = labels_end; i < last; ++i) {
        scores_[i] = -std::numeric_limits<Real>::infinity();
      }
      exponentiate(scores_ + first, last - first, scale, label(t), first);
      std::fill_n(scores_, group_size, frames_.blank_score(t));
      exponentiate(scores_, group_size, scale, blank_, t - begin);
    }
  }

  Extended<State> blank(int t) const {
    return blank_[t - begin_];
  }

  ExtendedRow<State> label(int t) const {
    return label_[t - begin_];
  }

  Int<State>* skip_exponent; // (S) see alpha_step()

 private:
  // Sets p[i + j] for j in [0, count), whole groups.
  void exponentiate(
      const Real* x,
      int64_t count,
      double scale,
      ExtendedRow<State> p,
      int64_t i) const {
    // Scores far above 0, which are no log-probabilities, are limited: over all
    // frames their product stays below 2^(2^23), which cannot lift an exponent
    // from zero_exponent to nearly_zero.
    double ceiling = double(1 << 23) / frames_.T;
    INDEPENDENT
    for (int64_t j = 0; j < count; ++j) {
      p.set(i + j, extended_exp<State>(x[j], scale, ceiling));
    }
    if constexpr (!std::is_same_v<Real, State>) {
      if (!frames_.with_logits || std::abs(scale) > greatest_log2_scale) {
        return;
      }
      // The floats of which the normaliser is the sum (compute_normaliser()).
      ScaledExp exp(filled(float(scale)));
      for (int64_t j = 0; j < count; j += block_size<float>) {
        Block<float> term = exp(load_block(x + j));
        for (int64_t k = 0; k < block_size<float>; ++k) {
          if (term[k] > 0x1p-60f) {
            p.set(i + j + k, normalised(Extended<double>{term[k], 0}));
          }
        }
      }
    }
  }

  const Frames<Real>& frames_;
  int begin_ = 0; // first frame of the segment
  Real* scores_; // (S) of one frame
  ExtendedRow<State> blank_; // (segment_frames)
  ExtendedRows<State> label_; // (segment_frames, S)
};

// Calls step(true_type) in frames that normalise mantissas, step(false_type) in
// the others.
template <typename Step>
inline void at_frame(int t, Step step) {
  if (t % normalising_interval == 0) {
    step(std::true_type());
  } else {
    step(std::false_type());
  }
}

// alpha_step() for frame t.
template <typename Real, typename State>
void alpha_step_at(
    const Frames<Real>& frames,
    const ExtendedProbabilities<Real, State>& probabilities,
    int t,
    ExtendedStates<State> previous,
    ExtendedStates<State> next) {
  at_frame(t, [&](auto normalise) {
    alpha_step<normalise()>(
        frames.band(t),
        probabilities.skip_exponent,
        previous,
        probabilities.blank(t),
        probabilities.label(t),
        next);
  });
}

// Alpha alone, for the loss. In double for every type of scores, because the
// rounding errors of alpha's mantissas add up over thousands of frames.
template <typename Real>
class ExtendedForward {
 public:
  // `next` is memory for one more row of states, with which that of the caller
  // is swapped.
  ExtendedForward(
      const Frames<Real>& frames,
      ExtendedStates<double>& next,
      Workspace& workspace)
      : frames_(frames), next_(next), probabilities_(frames, workspace) {}

  // Takes alpha from the frame before the segment to the last of the segment.
  void forward(int begin, int end, ExtendedStates<double>& alpha) {
    probabilities_.compute(begin, end);
    for (int t = begin; t < end; ++t) {
      alpha_step_at(frames_, probabilities_, t, alpha, next_);
      std::swap(alpha, next_);
    }
  }

 private:
  const Frames<Real>& frames_;
  ExtendedStates<double>& next_;
  ExtendedProbabilities<Real, double> probabilities_;
};

template <typename Real>
class ExtendedSegment {
 public:
  // `next` is memory for one more row of states. beta_p of the caller is
  // swapped with it.
  ExtendedSegment(
      const Frames<Real>& frames,
      ExtendedStates<Real>& next,
      Workspace& workspace)
      : frames_(frames), next_(next), probabilities_(frames, workspace) {
    int64_t pitch = row_pitch(frames.S);
    blank_rows_ = take_rows<Real>(workspace, frames.segment_frames, pitch);
    label_rows_ =
        take_rows<Real>(workspace, round_up(frames.segment_frames), pitch);
    blanks_ = workspace.take<Real>(row_pitch(frames.segment_frames));
    totals_ = workspace.take<Real>(row_pitch(frames.segment_frames));
  }

  // Computes and stores alpha of every frame, from that of the frame before the
  // segment. Always true.
  bool store_alphas(int begin, int end, ExtendedStates<Real> before) {
    begin_ = begin;
    probabilities_.compute(begin, end);
    for (int t = begin; t < end; ++t) {
      auto previous = t == begin ? before : alpha(t - 1);
      alpha_step_at(frames_, probabilities_, t, previous, alpha(t));
    }
    return true;
  }

  // From the stored alpha of the sequence's last frame.
  Extended<Real> z() const {
    return z_of(alpha(frames_.T - 1), frames_.S);
  }

  // Computes gamma of every frame in place of the stored alpha. `beta_p` is
  // that of the frame after the segment and becomes that of its first frame.
  // Always true. Calls fetch(t) before frame t.
  template <typename Fetch>
  bool compute_posteriors(
      int begin,
      int end,
      Extended<Real> inverse_z,
      ExtendedStates<Real>& beta_p,
      Fetch fetch) {
    next_.clear(-group_size, round_up(frames_.S) + group_size);
    for (int t = end - 1; t >= begin; --t) {
      fetch(t);
      compute_beta_p(t, inverse_z, beta_p, next_);
      std::swap(beta_p, next_);
      sum_posteriors(t);
    }
    return true;
  }

  Posteriors<Real> posteriors(int t) const {
    int64_t j = t - begin_;
    return {
        label_rows_[j].m,
        label_rows_.pitch,
        blanks_ + j,
        totals_ + j,
        nullptr,
        nullptr};
  }

 private:
  ExtendedStates<Real> alpha(int t) const {
    return {blank_rows_[t - begin_], label_rows_[t - begin_]};
  }

  // beta_step() for frame t.
  void compute_beta_p(
      int t,
      Extended<Real> inverse_z,
      ExtendedStates<Real> beta_p,
      ExtendedStates<Real> next) const {
    at_frame(t, [&](auto normalise) {
      beta_step<normalise()>(
          frames_.band(t),
          probabilities_.skip_exponent,
          alpha(t),
          probabilities_.blank(t),
          probabilities_.label(t),
          inverse_z,
          beta_p,
          next);
    });
  }

  // Sums gamma over the states of frame t. The sum differs from 1 by the
  // rounding errors of alpha, beta and z; the caller divides by it.
  void sum_posteriors(int t) {
    auto gamma = alpha(t);
    int64_t begin = frames_.band(t).groups_begin();
    int64_t end = frames_.band(t).groups_end();
    Real blanks = gamma.blank.m[-1] + sum(gamma.blank.m, begin, end);
    blanks_[t - begin_] = blanks;
    totals_[t - begin_] = blanks + sum(gamma.label.m, begin, end);
    auto [first, last] = frames_.groups_around(t);
    std::fill(gamma.label.m + first, gamma.label.m + begin, Real(0));
    std::fill(gamma.label.m + end, gamma.label.m + last, Real(0));
  }

  const Frames<Real>& frames_;
  int begin_ = 0; // first frame of the segment
  ExtendedStates<Real>& next_;
  ExtendedProbabilities<Real, Real> probabilities_;
  ExtendedRows<Real> blank_rows_; // (segment_frames, S) alpha, then gamma
  ExtendedRows<Real> label_rows_; // in the mantissas
  Real* blanks_; // (segment_frames) gamma of all blanks
  Real* totals_; // (segment_frames) gamma of all states
};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
