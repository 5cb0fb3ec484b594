// The lattice in a segment of frames, in extended-range numbers: whatever the
// scores are.
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

// Mantissas are normalised every few frames: a frame makes them at most six
// times as large.
constexpr int normalising_interval = 4;

template <bool normalise, typename Real>
inline Extended<Real> kept(Extended<Real> a) {
  return normalise ? normalised(a) : saturated(a);
}

// alpha(t) from alpha(t - 1) and the emissions of frame t, equation 6.
template <bool normalise, typename Real>
void alpha_step(
    Band band,
    const Int<Real>* skip,
    ExtendedStates<Real> previous,
    Extended<Real> blank,
    ExtendedRow<Real> label,
    ExtendedStates<Real> next) {
  int64_t begin = band.first_group();
  int64_t end = band.last_group();
  next.clear(begin - 1, begin);
  if (begin == 0) {
    next.blank.set(-1, kept<normalise>(previous.blank[-1] * blank));
  }
  next.clear(end, smaller(end + group_size, band.row_end));
  INDEPENDENT
  for (int64_t i = begin; i < end; ++i) {
    auto stay = previous.label[i];
    auto step = previous.blank[i - 1];
    auto jump = previous.label[i - 1];
    jump.e += skip[i];
    next.blank.set(i, kept<normalise>((previous.blank[i] + stay) * blank));
    next.label.set(i, kept<normalise>(sum(stay, step, jump) * label[i]));
  }
}

// One frame back in time, from beta(t + 1) p(t + 1) to beta(t) p(t), where
// beta(t) excludes frame t's own emission (equation 10, one emission less, so
// that gamma = alpha beta / Z needs no division by it). gamma takes the place
// of alpha's mantissas.
template <bool normalise, typename Real>
void beta_step(
    Band band,
    const Int<Real>* skip,
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
    next.blank.set(-1, kept<normalise>(beta_blank * blank));
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
    jump.e += skip[i + 1];
    auto beta_label = sum(stay, step, jump);
    next.blank.set(i, kept<normalise>(beta_blank * blank));
    next.label.set(i, kept<normalise>(beta_label * label[i]));
    alpha.blank.m[i] = posterior(alpha.blank[i], beta_blank);
    alpha.label.m[i] = posterior(alpha.label[i], beta_label);
  }
}

// Each step is done for the whole segment before the next: the frames of one
// step do not wait for each other, except in the recursions themselves.
template <typename Real>
class ExtendedSegment {
 public:
  // `next` is a row like those that the segments hand on.
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

  // Takes alpha from the frame before the segment to the segment's last.
  void forward(int begin, int end, ExtendedStates<Real>& alpha) {
    prepare(begin, end);
    for (int t = begin; t < end; ++t) {
      step_forward(t, alpha, next_);
      std::swap(alpha, next_);
    }
  }

  // Keeps alpha of every frame, from the one before the segment on.
  bool store_alphas(int begin, int end, ExtendedStates<Real> before) {
    prepare(begin, end);
    for (int t = begin; t < end; ++t) {
      step_forward(t, t == begin ? before : alpha(t - 1), alpha(t));
    }
    return true;
  }

  // Z, from the last frame's alpha.
  Extended<Real> z() const {
    return z_of(alpha(frames_.T - 1), frames_.S);
  }

  // Turns those alphas into posteriors. `beta_p`, beta p of the frame after
  // the segment, becomes that of its first.
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
    emit(end);
  }

  // Calls step(true_type) at the frames that normalise, step(false_type) at the
  // others.
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

  // A frame's posteriors sum to 1. Their sum tells what alpha, beta and Z have
  // gathered in rounding.
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

  // The probabilities that each frame gives the blank and the labels; of
  // logits, as unnormalised of 2^log2_scale.
  void emit(int end) {
    // Scores above 0 are no log-probabilities: so far up that their product
    // would lift a zero to a number, they saturate.
    double ceiling = double(1 << 23) / frames_.T;
    for (int t = begin_; t < end; ++t) {
      int j = t - begin_;
      log2_scale_[j] = frames_.log2_scale(t);
      blank_.m[j] = frames_.blank_score(t);
      const ExtendedRow<Real> label = label_[j];
      int64_t first = frames_.band(t).first_group();
      int64_t last = frames_.band(t).last_group();
      int64_t known = smaller(last, frames_.S);
      frames_.gather(t, first, known, label.m);
      for (int64_t i = known; i < last; ++i) {
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
  int begin_ = 0; // of the segment
  Int<Real>* skip_exponent_; // (S) exponent of what may jump to label i
  double*
      log2_scale_; // (segment_frames) log2 of what the scores are multiples of
  ExtendedRow<Real> blank_; // (segment_frames) p of the blank in each frame
  ExtendedRows<Real> label_; // (segment_frames, S) p of the labels
  ExtendedStates<Real>& next_;
  ExtendedRows<Real>
      blank_rows_; // (segment_frames, S) alpha, then gamma in its mantissas
  ExtendedRows<Real> label_rows_;
  Real* blanks_; // (segment_frames) gamma of all blanks
  Real* totals_; // (segment_frames) gamma of all states
};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
