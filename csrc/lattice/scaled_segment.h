// The forward-backward recursion over the frames of a segment in doubles: the
// faster form, for scores that are not too far apart.
//
// A label and the blank after it share an exponent, which is renewed every 16
// frames (exponents.h). Between two renewals a step needs no exponent: what
// goes from one label to the next is multiplied by the ratio of their scales.
// If a value might leave the range in which this is exact, the segment is
// refused and computed by ExtendedSegment.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "lattice/class_sums.h"
#include "lattice/exponents.h"
#include "lattice/frames.h"
#include "lattice/probabilities.h"
#include "lattice/scaled_states.h"
#include "simd/blocks.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

class ScaledSegment {
 public:
  ScaledSegment(const Frames<float>& frames, Workspace& workspace)
      : frames_(frames),
        S_(frames.S),
        row_end_(block_up(frames.S)),
        pitch_(row_end_ + 2 * block_size<double>),
        may_skip_(take_row(workspace)),
        ratio_(take_row(workspace)),
        scale_(take_row(workspace)),
        probabilities_(frames, workspace),
        exponents_(frames, ratio_) {
    constexpr int64_t width = block_size<double>;
    auto take_exponents = [&](int64_t rows) {
      return workspace.take<int64_t>(rows * pitch_) + width;
    };
    work_ = {take_row(workspace), take_row(workspace), take_exponents(1)};
    alphas_ =
        workspace.take<double>(frames.segment_frames * 2 * pitch_) + width;
    int renewals = (frames.segment_frames - 1) / renewal_interval + 1;
    alpha_exponents_ = take_exponents(renewals);
    blanks_ = workspace.take<float>(row_pitch(frames.segment_frames));
    totals_ = workspace.take<float>(row_pitch(frames.segment_frames));
  }

  // Takes alpha from the frame before the segment to the last of the segment.
  // False, with alpha unchanged, if the segment is refused. In both cases finds
  // the frames' normalisers, if they are logits.
  //
  // Rounding the exponentials of log-probabilities to floats changes the loss
  // by up to 1e-7 per frame. Where the loss is less than 1e6 times that error,
  // that is where alpha falls by less than a quarter of a bit per frame, the
  // segment is computed again with exponentials in
  // double, and the next segment starts with those. For logits see
  // compute_normaliser().
  //
  // With `storing`, the gradient of the same segment follows: store_alphas()
  // will find its work done, if the loss did not need doubles. It has to be the
  // only segment: before a later one the gradient knows alpha in floats only.
  bool forward(
      int begin,
      int end,
      ExtendedStates<double> alpha,
      Divisor& divisor,
      bool storing) {
    begin_ = begin;
    if (in_doubles_ && forward_in_doubles(begin, end, alpha)) {
      return true;
    }
    bool fits = prepare(begin, end, &divisor, storing) &&
        exponents_.read_forward(begin, alpha, work_);
    if (!fits) {
      return false;
    }
    int64_t before = exponents_.greatest_exponent(work_, begin);
    auto step = [&](int t) {
      alpha_step(t, probabilities_.label(t), probabilities_.blank(t), work_);
    };
    fits = storing ? step_through_storing(begin, end)
                   : step_through(begin, end, step);
    if (!fits) {
      return false;
    }
    if (!frames_.with_logits && falls_little(before, begin, end)) {
      in_doubles_ = true;
      return forward_in_doubles(begin, end, alpha);
    }
    is_stored_ = storing;
    exponents_.write(work_, frames_.band(end - 1), alpha);
    return true;
  }

  // Computes and stores alpha of every frame, from that of the frame before the
  // segment. False if the segment is refused.
  bool store_alphas(int begin, int end, ExtendedStates<float> before) {
    return is_stored_ ||
        (prepare(begin, end, nullptr, true) &&
         exponents_.read_forward(begin, before, work_) &&
         step_through_storing(begin, end));
  }

  // From the stored alpha of the sequence's last frame, equation 8.
  Extended<float> z() const {
    auto last = alpha(frames_.T - 1);
    double m = last.blank[S_ - 1] + (S_ > 0 ? last.label[S_ - 1] : 0.0);
    return last.at<float>(m, S_ - 1);
  }

  // Computes gamma of every frame from the stored alpha. `beta_p` is that of
  // the frame after the segment and becomes that of its first frame. False,
  // with beta_p unchanged, if the segment is refused. Calls fetch(t) before
  // frame t. Not inline: within a caller that uses all registers it is slower.
  template <typename Fetch>
  [[gnu::noinline]] bool compute_posteriors(
      int begin,
      int end,
      Extended<float> inverse_z,
      ExtendedStates<float> beta_p,
      Fetch fetch) {
    bool fits = exponents_.read_backward(end, beta_p, work_);
    for (int t = end - 1; t >= begin && fits; --t) {
      if (t == end - 1 || (t + 1) % renewal_interval == 0) {
        fits = exponents_.renew_backward(t, work_);
        set_scale(t, inverse_z);
      }
      fetch(t);
      beta_step(t);
    }
    if (!fits || !exponents_.renew(begin, work_, work_)) {
      return false;
    }
    Band b = frames_.band(end - 1);
    const float* gamma = probabilities_.label(end - 1);
    float total = blanks_[end - 1 - begin];
    for (int64_t i = b.begin; i < b.end; ++i) {
      total += gamma[i];
    }
    // The sum of gamma is the same in all frames of the segment, but for the
    // rounding of doubles. Far from 1 it shows that values were lost.
    std::fill(totals_, totals_ + round_up(end - begin), total);
    if (!(total > 0.5f && total < 2.0f)) {
      return false;
    }
    exponents_.write(work_, frames_.band(begin), beta_p);
    return true;
  }

  Posteriors<float> posteriors(int t) const {
    int64_t j = t - begin_;
    return {
        probabilities_.label(t),
        probabilities_.pitch,
        blanks_ + j,
        totals_ + j,
        probabilities_.unnormalised(t),
        probabilities_.inverse_sum(t)};
  }

 private:
  bool forward_in_doubles(int begin, int end, ExtendedStates<double> alpha) {
    set_may_skip();
    int64_t pitch = 2 * pitch_;
    double* rows = alphas_; // which the loss does not store
    bool fits = probabilities_.compute_doubles(
        begin, end, rows, pitch, least_probability, greatest_probability);
    if (!fits) {
      return false;
    }
    exponents_.limit(probabilities_.log2_least());
    if (!exponents_.read_forward(begin, alpha, work_)) {
      return false;
    }
    int64_t before = exponents_.greatest_exponent(work_, begin);
    if (!step_through(begin, end, [&](int t) {
          const double* p = rows + (t - begin) * pitch;
          alpha_step(t, p, p[-1], work_);
        })) {
      return false;
    }
    in_doubles_ = falls_little(before, begin, end);
    exponents_.write(work_, frames_.band(end - 1), alpha);
    return true;
  }

  // Takes work_ through the frames. False if it leaves the limits.
  template <typename Step>
  bool step_through(int begin, int end, Step step) {
    bool fits = true;
    for (int t = begin; t < end && fits; ++t) {
      if (t % renewal_interval == 0) {
        fits = exponents_.renew_forward(t, work_, work_);
      }
      step(t);
    }
    return fits && exponents_.renew_forward(end, work_, work_);
  }

  // The same, and stores alpha of every frame.
  bool step_through_storing(int begin, int end) {
    bool fits = true;
    auto previous = work_;
    for (int t = begin; t < end && fits; ++t) {
      auto next = alpha(t);
      if (t % renewal_interval == 0) {
        ScaledStates renewed = {work_.blank, work_.label, next.exponent};
        fits = exponents_.renew_forward(t, previous, renewed);
        previous = renewed;
      }
      alpha_step(
          t, probabilities_.label(t), probabilities_.blank(t), previous, next);
      previous = next;
    }
    return fits && exponents_.renew_forward(end, previous, work_);
  }

  // Whether alpha's greatest exponent has fallen from `before` by less than a
  // quarter per frame.
  bool falls_little(int64_t before, int begin, int end) const {
    return 4 * (before - exponents_.greatest_exponent(work_, end - 1)) <
        end - begin;
  }

  // A row has a block before index 0 and one after the last.
  double* take_row(Workspace& workspace) const {
    return workspace.take<double>(pitch_) + block_size<double>;
  }

  // Computes the probabilities. False if they are out of the limits.
  bool prepare(int begin, int end, Divisor* divisor, bool for_gradient) {
    begin_ = begin;
    set_may_skip();
    if (!probabilities_.compute(begin, end, divisor, for_gradient) ||
        !probabilities_.are_within(least_probability, greatest_probability)) {
      return false;
    }
    exponents_.limit(probabilities_.log2_least());
    return true;
  }

  void set_may_skip() const {
    for (int64_t i = -1; i < row_end_; ++i) {
      may_skip_[i] = may_skip_blank(frames_.sequence, i + 1);
    }
  }

  static Block<double> load_doubles(const float* x) {
    return load_widened(x);
  }

  static Block<double> load_doubles(const double* x) {
    return load_block(x);
  }

  ScaledStates alpha(int t) const {
    int64_t j = t - begin_;
    double* row = alphas_ + j * 2 * pitch_;
    return {
        row, row + pitch_, alpha_exponents_ + j / renewal_interval * pitch_};
  }

  // One frame of the forward recursion, equation 6: alpha(t), `next`, from
  // alpha(t - 1), `previous`, and the probabilities. They may be the same
  // memory.
  //
  //   next blank i = (blank i + label i) * p_blank
  //   next label i = label i * p_label i + ratio i * p_label i *
  //                      (blank i-1 + label i-1 * may_skip i-1)
  //
  // as in extended_segment.h; ratio i takes a value from the scale of label i-1
  // to that of label i.
  template <typename P>
  void alpha_step(
      int t,
      const P* p,
      double p_blank,
      ScaledStates previous,
      ScaledStates next) const {
    constexpr int64_t width = block_size<double>;
    int64_t begin = first_block(frames_, t);
    int64_t end = last_block(frames_, t);
    // leaving() of the block before: its last element enters the first label.
    Block<double> before = {};
    double first = 0;
    if (begin == 0) {
      before = filled(previous.blank[-1]);
      first = previous.blank[-1] * p_blank;
    } else if (begin > first_block(frames_, t - 1)) {
      before = leaving(previous, begin - width);
    }
    next.blank[-1] = first;
    for (int64_t i = begin; i < end; i += width) {
      auto blank = load_block(previous.blank + i);
      auto label = load_block(previous.label + i);
      auto left = blank + label * load_block(may_skip_ + i);
      auto p_label = load_doubles(p + i);
      // The product ratio * p_label is formed first, because it need not wait
      // for the frame before.
      auto entered =
          shifted<1>(before, left) * (load_block(ratio_ + i) * p_label);
      store_block(next.blank + i, (blank + label) * p_blank, width);
      store_block(next.label + i, label * p_label + entered, width);
      before = left;
    }
    if (end < row_end_) {
      store_block(next.blank + end, Block<double>{}, width);
      store_block(next.label + end, Block<double>{}, width);
    }
  }

  template <typename P>
  void alpha_step(int t, const P* p, double p_blank, ScaledStates a) const {
    alpha_step(t, p, p_blank, a, a);
  }

  // What enters label i + 1 from the blank after label i and, where the blank
  // may be skipped, from label i.
  Block<double> leaving(ScaledStates states, int64_t i) const {
    return load_block(states.blank + i) +
        load_block(states.label + i) * load_block(may_skip_ + i);
  }

  // One frame of the backward recursion, equation 10: beta_p(t) from
  // beta_p(t + 1), both in work_. As in extended_segment.h, beta(t) leaves out
  // the probability of frame t, so that gamma = alpha * beta / z needs no
  // division. gamma of the labels is stored in place of their probabilities.
  void beta_step(int t) {
    constexpr int64_t width = block_size<double>;
    auto [alpha_blank, alpha_label, exponent] = alpha(t);
    float* p = probabilities_.label(t);
    double p_blank = probabilities_.blank(t);
    int64_t begin = first_block(frames_, t);
    int64_t end = last_block(frames_, t);
    Block<double> gamma_blanks = {};
    Block<double> after = {}; // the labels of the block after this one
    if (t + 1 < frames_.T && end < last_block(frames_, t + 1)) {
      after = load_block(work_.label + end);
    }
    for (int64_t i = end - width; i >= begin; i -= width) {
      auto blank = load_block(work_.blank + i);
      auto label = load_block(work_.label + i);
      auto entered = shifted<width - 1>(label, after) * load_block(ratio_ + i);
      auto beta_blank = blank + entered;
      auto beta_label = blank + label + entered * load_block(may_skip_ + i);
      auto scale = load_block(scale_ + i);
      gamma_blanks += load_block(alpha_blank + i) * scale * beta_blank;
      store_block(work_.blank + i, beta_blank * p_blank, width);
      store_block(work_.label + i, beta_label * load_widened(p + i), width);
      store_narrowed(p + i, load_block(alpha_label + i) * scale * beta_label);
      after = label;
    }
    double gamma = total<double>(gamma_blanks);
    if (begin == 0) {
      double beta = work_.blank[-1] + after[0] * ratio_[-1];
      gamma += alpha_blank[-1] * scale_[-1] * beta;
      work_.blank[-1] = beta * p_blank;
    }
    blanks_[t - begin_] = float(gamma);
    auto [first, last] = frames_.groups_around(t);
    std::fill(p + first, p + larger(begin, first), 0.0f);
    std::fill(p + smaller(end, last), p + last, 0.0f);
  }

  // The factor that makes gamma of alpha * beta in the frames from t back to
  // the last renewal of alpha's exponents: 2^(both exponents) / z. An exponent
  // above 1000 occurs only where alpha or beta is 0.
  void set_scale(int t, Extended<float> inverse_z) {
    constexpr int64_t width = block_size<double>;
    const int64_t* alpha_exponent = alpha(t).exponent;
    auto scale = [&](Block<int64_t> e) {
      e += int64_t(inverse_z.e);
      e = e < -1023 ? filled<int64_t>(-1023) : e;
      e = e > 1000 ? filled<int64_t>(1000) : e;
      return power_of_two(e) * double(inverse_z.m);
    };
    int64_t begin = first_block(frames_, t - t % renewal_interval);
    int64_t end = last_block(frames_, t);
    for (int64_t i = begin; i < end; i += width) {
      auto e = load_block(alpha_exponent + i) + load_block(work_.exponent + i);
      store_block(scale_ + i, scale(e), width);
    }
    scale_[-1] = scale(filled(alpha_exponent[-1] + work_.exponent[-1]))[0];
  }

  const Frames<float>& frames_;
  const int64_t S_;
  const int64_t row_end_; // end of the blocks that hold all labels
  const int64_t pitch_; // length of a row with a block before and one after
  double* const may_skip_; // (S) 1 if label i + 1 may follow i without a blank
  double* const ratio_; // (S) see Exponents::set_ratios()
  double* const scale_; // (S) see set_scale()
  Probabilities probabilities_; // the labels' become gamma
  Exponents exponents_;
  int begin_ = 0; // first frame of the segment
  bool in_doubles_ = false; // see forward()
  bool is_stored_ = false; // alpha of every frame, by forward()
  ScaledStates work_; // alpha or beta_p of one frame
  double* alphas_; // (segment_frames, 2, S)
  int64_t* alpha_exponents_; // (renewals, S)
  float* blanks_; // (segment_frames) gamma of all blanks
  float* totals_; // (segment_frames) gamma of all states
};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
