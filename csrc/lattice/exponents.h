// The exponents of ScaledStates: how they are set from numbers of extended
// range, how they are renewed every 16 frames, and the ratios of neighbouring
// scales that the frames between two renewals need.
//
// A double loses nothing as long as it stays in its range. Limits on the
// probabilities, and on the values at each renewal, guarantee that. Values
// outside of the limits are refused.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "lattice/frames.h"
#include "lattice/scaled_states.h"
#include "simd/blocks.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

// In each of the 16 frames a value falls at most by the factor of the least
// probability: at a renewal it must be so great that 16 frames later alpha *
// beta is still above 2^-1000. In the same frames a value rises at most by
// 48^16, less than 2^90 (three terms, times the greatest probability): next to
// it, what falls below the range of a double is negligible. greatest_renewed
// detects values that a ratio has made infinite.
constexpr float least_probability = 0x1p-48f;
constexpr float greatest_probability = 16;
constexpr int least_product = -1000;
constexpr double greatest_renewed = 0x1p1000;

// The result of a comparison of blocks: -1 where it is true, else 0.
template <typename T>
inline Block<int64_t> mask(T comparison) {
  return std::bit_cast<Block<int64_t>>(comparison);
}

class Exponents {
 public:
  // `ratio` (S) is set by renew_forward() and renew_backward().
  Exponents(const Frames<float>& frames, double* ratio)
      : frames_(frames),
        S_(frames.S),
        row_end_(block_up(frames.S)),
        ratio_(ratio) {}

  // Sets the limits for a segment whose probabilities are at least
  // 2^log2_least.
  void limit(int log2_least) {
    int fall = renewal_interval * smaller(log2_least, 0);
    least_log2_ = (least_product - fall) / 2;
    least_renewed_ = std::ldexp(1.0, least_log2_);
  }

  // Sets `to` to alpha(t - 1), `from`. False if it is out of the limits.
  template <typename Real>
  bool read_forward(int t, ExtendedStates<Real> from, ScaledStates to) {
    Band b = frames_.band(t - 1);
    if (!read(from, b.begin > 0 ? b.begin : -1, b.end, to)) {
      return false;
    }
    front_ = row_end_ - 1;
    while (is_zero(to, front_)) {
      --front_;
    }
    int64_t first = -1;
    while (is_zero(to, first)) {
      ++first;
    }
    // A state that is 0 takes the exponent of the label before it, from which
    // it will be entered.
    int64_t exponent = to.exponent[first];
    for (int64_t i = -1; i < row_end_; ++i) {
      exponent = to.exponent[i] = is_zero(to, i) ? exponent : to.exponent[i];
    }
    return true;
  }

  // Copies beta_p(t), `from`, into `to`; false if a value is out of the limits.
  bool read_backward(int t, ExtendedStates<float> from, ScaledStates to) {
    if (!read(from, -1, smaller<int64_t>(S_, t + 1), to)) {
      return false;
    }
    front_ = -1;
    while (is_zero(to, front_)) {
      ++front_;
    }
    int64_t last = row_end_ - 1;
    while (is_zero(to, last)) {
      --last;
    }
    // A state that is 0 takes the exponent of the label after it.
    int64_t exponent = to.exponent[last];
    for (int64_t i = row_end_ - 1; i >= -1; --i) {
      exponent = to.exponent[i] = is_zero(to, i) ? exponent : to.exponent[i];
    }
    return true;
  }

  // Sets `to` to the states in band b; the others become 0.
  template <typename Real>
  void write(ScaledStates from, Band b, ExtendedStates<Real> to) const {
    to.clear(-group_size, round_up(S_) + group_size);
    for (int64_t i = b.begin > 0 ? b.begin : -1; i < b.end; ++i) {
      to.blank.set(i, from.at<Real>(from.blank[i], i));
      to.label.set(i, from.at<Real>(from.label[i], i));
    }
  }

  // Gives the states of frame t new exponents: the sum of a label and its blank
  // becomes a double from 1 to 2. False if they are out of the limits.
  bool renew(int t, ScaledStates from, ScaledStates to) const {
    constexpr int64_t width = block_size<double>;
    int64_t begin = first_block(frames_, t);
    int64_t end = smaller(last_block(frames_, t) + width, row_end_);
    Block<int64_t> refused = {};
    // Scales a block of labels and blanks; returns what the exponents grow by.
    auto renew_block = [&](Block<double>& blank, Block<double>& label) {
      Block<double> both = blank + label;
      Block<int64_t> bits = exponent_bits(both);
      Block<double> power = std::bit_cast<Block<double>>((2046 - bits) << 52);
      refused |= ~mask(both < greatest_renewed);
      Block<int64_t> is_blank = mask(blank > 0.0), is_label = mask(label > 0.0);
      blank *= power;
      label *= power;
      refused |= is_blank & mask(blank < least_renewed_);
      refused |= is_label & mask(label < least_renewed_);
      return bits - 1023;
    };
    for (int64_t i = begin; i < end; i += width) {
      auto blank = load_block(from.blank + i);
      auto label = load_block(from.label + i);
      auto e = load_block(from.exponent + i) + renew_block(blank, label);
      store_block(to.blank + i, blank, width);
      store_block(to.label + i, label, width);
      store_block(to.exponent + i, e, width);
    }
    Block<double> blank = filled(from.blank[-1]), label = {};
    to.exponent[-1] = from.exponent[-1] + renew_block(blank, label)[0];
    to.blank[-1] = blank[0];
    return !any(refused);
  }

  // Renews alpha(t - 1) and sets the ratios for the `renewal_interval` frames
  // from t on. False if alpha is out of the limits.
  bool renew_forward(int t, ScaledStates from, ScaledStates to) {
    bool fits = renew(t - 1, from, to);
    int64_t begin = first_block(frames_, t - 1);
    int64_t end = last_block(frames_, t + renewal_interval - 1);
    int64_t reachable = smaller<int64_t>(S_, t);
    front_ = larger(front_, begin > 0 ? begin : -1);
    while (front_ + 1 < reachable &&
           to.label[front_ + 1] + to.blank[front_ + 1] > 0) {
      ++front_;
    }
    // The labels that the next frames will reach.
    for (int64_t i = front_ + 1; i < end; ++i) {
      to.exponent[i] = to.exponent[front_];
    }
    set_ratios(to.exponent, -1, begin, end);
    // Nothing enters the first block from before it, nor a place without a
    // label.
    if (begin > 0) {
      ratio_[begin] = 0;
    }
    for (int64_t i = S_; i < row_end_; ++i) {
      ratio_[i] = 0;
    }
    return fits;
  }

  // Renews beta_p(t + 1) and sets the ratios for the frames from t back to the
  // last renewal of alpha. False if beta_p is out of the limits.
  bool renew_backward(int t, ScaledStates row) {
    int following = smaller(t + 1, frames_.T - 1);
    bool fits = renew(following, row, row);
    int64_t begin = first_block(frames_, t - t % renewal_interval);
    int64_t end = last_block(frames_, following);
    front_ = smaller(front_, frames_.band(following).end - 1);
    while (front_ >= 0 && row.blank[front_ - 1] + row.label[front_ - 1] > 0) {
      --front_;
    }
    // Labels in front of those reached so far, which earlier frames will reach,
    // take the exponent of the front.
    for (int64_t i = front_ - 1; i >= begin - 1; --i) {
      row.exponent[i] = row.exponent[front_];
    }
    set_ratios(row.exponent, 1, begin, end);
    ratio_[end - 1] = 0; // nothing enters the last block from after it
    return fits;
  }

  // The greatest exponent among the states of frame t.
  int64_t greatest_exponent(ScaledStates row, int t) const {
    constexpr int64_t width = block_size<double>;
    Block<int64_t> found = filled(row.exponent[-1]);
    int64_t end = last_block(frames_, t);
    for (int64_t i = first_block(frames_, t); i < end; i += width) {
      found = larger(load_block(row.exponent + i), found);
    }
    return greatest<int64_t>(found);
  }

 private:
  // ratio[i] = 2^(exponent[i + from] - exponent[i]): the factor of a value that
  // comes to label i from label i + from. A ratio above 2^1000 becomes
  // infinite, and so does the value, which the next renewal refuses.
  void set_ratios(
      const int64_t* exponent,
      int64_t from,
      int64_t begin,
      int64_t end) {
    constexpr int64_t width = block_size<double>;
    auto ratio = [](Block<int64_t> e) {
      e = e < -1023 ? filled<int64_t>(-1023) : e;
      e = e > 1000 ? filled<int64_t>(1024) : e;
      return power_of_two(e);
    };
    for (int64_t i = begin; i < end; i += width) {
      auto e = load_block(exponent + i + from) - load_block(exponent + i);
      store_block(ratio_ + i, ratio(e), width);
    }
    if (begin == 0) {
      ratio_[-1] = ratio(filled(exponent[-1 + from] - exponent[-1]))[0];
    }
  }

  static bool is_zero(ScaledStates row, int64_t i) {
    return row.blank[i] + row.label[i] == 0;
  }

  // Sets `to` to the states of labels [begin, end) of `from`, all others to 0.
  // False if a label and its blank are too far apart for one exponent, or if
  // all states are 0.
  template <typename Real>
  bool read(
      ExtendedStates<Real> from,
      int64_t begin,
      int64_t end,
      ScaledStates to) const {
    for (int64_t i = -1; i < row_end_; ++i) {
      to.blank[i] = to.label[i] = 0;
      to.exponent[i] = 0;
    }
    bool fits = true;
    bool found = false;
    for (int64_t i = begin; i < end; ++i) {
      auto blank = from.blank[i];
      auto label = i < 0 ? zero<Real>() : from.label[i];
      Int<Real> e = larger(blank.e, label.e);
      auto mantissa = [&](Extended<Real> a) {
        bool is_zero = a.e < nearly_zero;
        fits &= is_zero || a.e - e > least_log2_;
        return is_zero ? 0 : a.m * power_of_two<double>(a.e - e);
      };
      to.blank[i] = mantissa(blank);
      to.label[i] = mantissa(label);
      to.exponent[i] = e;
      found |= !is_zero(to, i);
    }
    return fits && found;
  }

  const Frames<float>& frames_;
  const int64_t S_;
  const int64_t row_end_; // end of the blocks that hold all labels
  double* const ratio_; // (S) see set_ratios()
  // The last label with alpha above 0, or the first with beta_p above 0.
  int64_t front_ = -1;
  int least_log2_ = 0; // limit of a value at a renewal
  double least_renewed_ = 1; // 2^least_log2_
};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
