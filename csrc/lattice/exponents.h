// The exponents of rows of states: how the states come to have them, how they
// are renewed every few frames, and the ratios of neighbours' scales that the
// frames between need.
//
// Nothing is lost while every value stays within a double's range. Limits on
// the probabilities, and on the two values that share an exponent whenever it
// is renewed, guarantee that; what is outside them is refused.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "lattice/frames.h"
#include "lattice/scaled_states.h"
#include "simd/blocks.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

// Frames from one renewal to the next.
constexpr int renewal_interval = 16;

// A value falls by no more than the least probability in each of these frames.
// It may begin so low that an alpha times a beta stays above 2^-1000. It rises
// so little that what a double's range cuts off is nothing next to it.
constexpr float least_probability = 0x1p-48f;
constexpr float greatest_probability = 16;
constexpr int least_product = -1000;
constexpr double greatest_renewed = 0x1p1000;

// A comparison's result as numbers: -1 where it holds, else 0.
template <typename T>
inline Block<int64_t> mask(T comparison) {
  return std::bit_cast<Block<int64_t>>(comparison);
}

inline bool any(Block<int64_t> mask) {
  int64_t found = 0;
  for (int64_t j = 0; j < block_size<int64_t>; ++j) {
    found |= mask[j];
  }
  return found != 0;
}

class Exponents {
 public:
  // ratio: a row (S).
  Exponents(const Frames<float>& frames, double* ratio)
      : frames_(frames),
        S_(frames.S),
        row_end_(block_up(frames.S)),
        ratio_(ratio) {}

  // For frames whose probabilities are 2^log2_least at least.
  void limit(int log2_least) {
    int fall = renewal_interval * smaller(log2_least, 0);
    least_log2_ = (least_product - fall) / 2;
    least_renewed_ = std::ldexp(1.0, least_log2_);
  }

  // alpha before frame t. False where it does not fit.
  bool read_forward(int t, ExtendedStates<float> from, ScaledStates to) {
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
    int64_t known = to.exponent[first];
    for (int64_t i = -1; i < row_end_; ++i) {
      known = to.exponent[i] = is_zero(to, i) ? known : to.exponent[i];
    }
    return true;
  }

  // beta p of frame t.
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
    int64_t known = to.exponent[last];
    for (int64_t i = row_end_ - 1; i >= -1; --i) {
      known = to.exponent[i] = is_zero(to, i) ? known : to.exponent[i];
    }
    return true;
  }

  // The states of a frame whose band is b.
  void write(ScaledStates from, Band b, ExtendedStates<float> to) const {
    to.clear(-group_size, round_up(S_) + group_size);
    for (int64_t i = b.begin > 0 ? b.begin : -1; i < b.end; ++i) {
      to.blank.set(i, from.at(from.blank[i], i));
      to.label.set(i, from.at(from.label[i], i));
    }
  }

  // Gives the states of frame t new exponents, such that their mantissas are
  // near 1. False where they are out of the limits.
  bool renew(int t, ScaledStates from, ScaledStates to) const {
    constexpr int64_t width = block_size<double>;
    int64_t begin = first_block(frames_, t);
    int64_t end = smaller(last_block(frames_, t) + width, row_end_);
    Block<int64_t> refused = {};
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

  // Before frame t, which begins `renewal_interval` frames, alpha(t - 1) is
  // renewed, and the ratios that those frames need.
  bool renew_forward(int t, ScaledStates from, ScaledStates to) {
    bool fits = renew(t - 1, from, to);
    int64_t begin = first_block(frames_, t - 1);
    int64_t end = last_block(frames_, t + renewal_interval - 1);
    int64_t known = smaller<int64_t>(S_, t);
    front_ = larger(front_, begin > 0 ? begin : -1);
    while (front_ + 1 < known &&
           to.label[front_ + 1] + to.blank[front_ + 1] > 0) {
      ++front_;
    }
    for (int64_t i = front_ + 1; i < end; ++i) {
      to.exponent[i] = to.exponent[front_];
    }
    set_ratios(to.exponent, -1, begin, end);
    if (begin > 0) {
      ratio_[begin] = 0;
    }
    for (int64_t i = S_; i < row_end_; ++i) {
      ratio_[i] = 0;
    }
    return fits;
  }

  // And beta p of frame t + 1, before the frames from t back to the last that
  // began such frames.
  bool renew_backward(int t, ScaledStates row) {
    int following = smaller(t + 1, frames_.T - 1);
    bool fits = renew(following, row, row);
    int64_t begin = first_block(frames_, t - t % renewal_interval);
    int64_t end = last_block(frames_, following);
    front_ = smaller(front_, frames_.band(following).end - 1);
    while (front_ >= 0 && row.blank[front_ - 1] + row.label[front_ - 1] > 0) {
      --front_;
    }
    for (int64_t i = front_ - 1; i >= begin - 1; --i) {
      row.exponent[i] = row.exponent[front_];
    }
    set_ratios(row.exponent, 1, begin, end);
    ratio_[end - 1] = 0;
    return fits;
  }

 private:
  // ratio[i] = 2^(exponent[i + from] - exponent[i]). One that is too great
  // makes what it multiplies infinite, which the next renewal refuses.
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

  // The states of labels [begin, end), all others being zero. False where a
  // label and its blank are too far apart for one exponent, or all is zero.
  bool read(
      ExtendedStates<float> from,
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
      auto label = i < 0 ? zero<float>() : from.label[i];
      int32_t e = larger(blank.e, label.e);
      auto mantissa = [&](Extended<float> a) {
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
  const int64_t row_end_; // of the blocks that hold all labels
  double* const ratio_; // (S) of the scale that a neighbour's value comes from
  // The last label that alpha has reached, or beta the first.
  int64_t front_ = -1;
  int least_log2_ = 0; // of a renewed value
  double least_renewed_ = 1;
};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
