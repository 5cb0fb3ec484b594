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

// a, normalised in the frames that do so.
template <bool normalise, typename Real>
inline Extended<Real> renewed(Extended<Real> a) {
  return normalise ? normalised(a) : saturated(a);
}

// One frame of the forward recursion, equation 6: alpha(t), `next`, from
// alpha(t - 1), `previous`, and the probabilities of the blank and the labels
// in frame t. skip_exponent[i] is 0 if label i may follow label i - 1 without a
// blank, else zero_exponent, which makes that term 0.
template <bool normalise, typename Real>
void alpha_step(
    Band band,
    const Int<Real>* skip_exponent,
    ExtendedStates<Real> previous,
    Extended<Real> blank,
    ExtendedRow<Real> label,
    ExtendedStates<Real> next) {
  int64_t begin = band.first_group();
  int64_t end = band.last_group();
  next.clear(begin - 1, begin);
  if (begin == 0) {
    next.blank.set(-1, renewed<normalise>(previous.blank[-1] * blank));
  }
  next.clear(end, smaller(end + group_size, band.row_end));
  INDEPENDENT
  for (int64_t i = begin; i < end; ++i) {
    auto stay = previous.label[i];
    auto step = previous.blank[i - 1];
    auto jump = previous.label[i - 1];
    jump.e += skip_exponent[i];
    next.blank.set(i, renewed<normalise>((previous.blank[i] + stay) * blank));
    next.label.set(i, renewed<normalise>(sum(stay, step, jump) * label[i]));
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
    Extended<Real> blank,
    ExtendedRow<Real> label,
    Extended<Real> inverse_z,
    ExtendedStates<Real> beta_p,
    ExtendedStates<Real> next) {
  auto posterior = [&](Extended<Real> alpha, Extended<Real> beta) {
    auto gamma = alpha * beta * inverse_z;
    return gamma.m * power_of_two<Real>(gamma.e);
  };
  int64_t begin = band.first_group();
  int64_t end = band.last_group();
  if (begin == 0) {
    auto beta_blank = beta_p.blank[-1] + beta_p.label[0];
    alpha.blank.m[-1] = posterior(alpha.blank[-1], beta_blank);
    next.blank.set(-1, renewed<normalise>(beta_blank * blank));
  } else {
    alpha.blank.m[-1] = 0;
    next.clear(begin - group_size, begin);
  }
  INDEPENDENT
  for (int64_t i = begin; i < end; ++i) {
    auto stay = beta_p.label[i];
    auto step = beta_p.blank[i];
    auto jump = beta_p.label[i + 1];
    auto beta_blank = step + jump;
    jump.e += skip_exponent[i + 1];
    auto beta_label = sum(stay, step, jump);
    next.blank.set(i, renewed<normalise>(beta_blank * blank));
    next.label.set(i, renewed<normalise>(beta_label * label[i]));
    alpha.blank.m[i] = posterior(alpha.blank[i], beta_blank);
    alpha.label.m[i] = posterior(alpha.label[i], beta_label);
  }
}

// First the scores of all frames are read, then all exponentials are taken,
// then the recursion runs: in the first two steps no frame waits for another.
template <typename Real>
class ExtendedSegment {
 public:
  // `next` is memory for one more row of states. alpha and beta_p of the caller
  // are swapped with it.
  ExtendedSegment(
      const Frames<Real>& frames,
      ExtendedStates<Real>& next,
      Workspace& workspace)
      : frames_(frames), next_(next) {
    int64_t pitch = row_pitch(frames.S);
    skip_exponent_ = workspace.take<Int<Real>>(pitch);
    log2_scale_ = workspace.take<double>(frames.segment_frames);
    blank_ = take_row<Real>(workspace, row_pitch(frames.segment_frames));
    label_ = take_rows<Real>(workspace, frames.segment_frames, pitch);
    blank_rows_ = take_rows<Real>(workspace, frames.segment_frames, pitch);
    label_rows_ =
        take_rows<Real>(workspace, round_up(frames.segment_frames), pitch);
    blanks_ = workspace.take<Real>(row_pitch(frames.segment_frames));
    totals_ = workspace.take<Real>(row_pitch(frames.segment_frames));
  }

  // Takes alpha from the frame before the segment to the last of the segment.
  void forward(int begin, int end, ExtendedStates<Real>& alpha) {
    prepare(begin, end);
    for (int t = begin; t < end; ++t) {
      step_forward(t, alpha, next_);
      std::swap(alpha, next_);
    }
  }

  // Computes and stores alpha of every frame, from that of the frame before the
  // segment. Always true.
  bool store_alphas(int begin, int end, ExtendedStates<Real> before) {
    prepare(begin, end);
    for (int t = begin; t < end; ++t) {
      step_forward(t, t == begin ? before : alpha(t - 1), alpha(t));
    }
    return true;
  }

  // From the stored alpha of the sequence's last frame.
  Extended<Real> z() const {
    return z_of(alpha(frames_.T - 1), frames_.S);
  }

  // Computes gamma of every frame in place of the stored alpha. `beta_p` is
  // that of the frame after the segment and becomes that of its first frame.
  // Always true.
  bool posteriors(
      int begin,
      int end,
      Extended<Real> inverse_z,
      ExtendedStates<Real>& beta_p) {
    next_.clear(-group_size, round_up(frames_.S) + group_size);
    for (int t = end - 1; t >= begin; --t) {
      step_back(t, inverse_z, beta_p, next_);
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

  void prepare(int begin, int end) {
    begin_ = begin;
    for (int64_t i = 0; i < round_up(frames_.S) + group_size; ++i) {
      skip_exponent_[i] =
          may_skip_blank(frames_.sequence, i) ? 0 : zero_exponent;
    }
    find_probabilities(end);
  }

  // Calls step(true_type) in frames that normalise mantissas, step(false_type)
  // in the others.
  template <typename Step>
  static void at_frame(int t, Step step) {
    if (t % normalising_interval == 0) {
      step(std::true_type());
    } else {
      step(std::false_type());
    }
  }

  void step_forward(
      int t,
      ExtendedStates<Real> previous,
      ExtendedStates<Real> next) const {
    int j = t - begin_;
    at_frame(t, [&](auto normalise) {
      alpha_step<normalise()>(
          frames_.band(t),
          skip_exponent_,
          previous,
          blank_[j],
          label_[j],
          next);
    });
  }

  void step_back(
      int t,
      Extended<Real> inverse_z,
      ExtendedStates<Real> beta_p,
      ExtendedStates<Real> next) const {
    int j = t - begin_;
    at_frame(t, [&](auto normalise) {
      beta_step<normalise()>(
          frames_.band(t),
          skip_exponent_,
          alpha(t),
          blank_[j],
          label_[j],
          inverse_z,
          beta_p,
          next);
    });
  }

  // Sums gamma over the states of frame t. The sum differs from 1 by the
  // rounding errors of alpha, beta and z; the caller divides by it.
  void sum_posteriors(int t) {
    auto gamma = alpha(t);
    int64_t begin = frames_.band(t).first_group();
    int64_t end = frames_.band(t).last_group();
    Real blanks = gamma.blank.m[-1] + sum(gamma.blank.m, begin, end);
    blanks_[t - begin_] = blanks;
    totals_[t - begin_] = blanks + sum(gamma.label.m, begin, end);
    auto [first, last] = frames_.groups_around(t);
    std::fill(gamma.label.m + first, gamma.label.m + begin, Real(0));
    std::fill(gamma.label.m + end, gamma.label.m + last, Real(0));
  }

  // Computes the probabilities of the blank and the labels in the frames up to
  // `end`; for logits exp(score) / 2^log2_scale.
  void find_probabilities(int end) {
    // Scores far above 0, which are no log-probabilities, are limited: over all
    // frames their product stays below 2^(2^23), which cannot lift an exponent
    // from zero_exponent to nearly_zero.
    double ceiling = double(1 << 23) / frames_.T;
    for (int t = begin_; t < end; ++t) {
      int j = t - begin_;
      log2_scale_[j] = frames_.log2_scale(t);
      blank_.m[j] = frames_.blank_score(t);
      const ExtendedRow<Real> label = label_[j];
      int64_t first = frames_.band(t).first_group();
      int64_t last = frames_.band(t).last_group();
      int64_t labels_end = smaller(last, frames_.S);
      frames_.gather(t, first, labels_end, label.m);
      for (int64_t i = labels_end; i < last; ++i) {
        label.m[i] = -std::numeric_limits<Real>::infinity();
      }
    }
    for (int t = begin_; t < end; ++t) {
      const ExtendedRow<Real> label = label_[t - begin_];
      double scale = log2_scale_[t - begin_];
      int64_t first = frames_.band(t).first_group();
      int64_t last = frames_.band(t).last_group();
      INDEPENDENT
      for (int64_t i = first; i < last; ++i) {
        label.set(i, extended_exp(label.m[i], scale, ceiling));
      }
    }
    int count = end - begin_;
    INDEPENDENT
    for (int j = 0; j < count; ++j) {
      blank_.set(j, extended_exp(blank_.m[j], log2_scale_[j], ceiling));
    }
  }

  const Frames<Real>& frames_;
  int begin_ = 0; // first frame of the segment
  Int<Real>* skip_exponent_; // (S) see alpha_step()
  double* log2_scale_; // (segment_frames)
  ExtendedRow<Real> blank_; // (segment_frames) p of the blank in each frame
  ExtendedRows<Real> label_; // (segment_frames, S) p of the labels
  ExtendedStates<Real>& next_;
  ExtendedRows<Real> blank_rows_; // (segment_frames, S) alpha, then gamma
  ExtendedRows<Real> label_rows_; // in the mantissas
  Real* blanks_; // (segment_frames) gamma of all blanks
  Real* totals_; // (segment_frames) gamma of all states
};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
