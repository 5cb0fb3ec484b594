// The lattice in a run of frames, in doubles with a scale for each label: the
// fast way, for scores that are not too far apart.
//
// A label and the blank after it share an exponent, which stays as it is for
// several frames. Until it is renewed a step has no exponents to look at: what
// goes from one label to the next is multiplied by the ratio of their scales.
// Nothing is lost while every value stays within a double's range. Limits on
// the probabilities, and on the two values that share an exponent whenever it
// is renewed, guarantee that; a run outside them is refused, and left to
// ExtendedRun.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>

#include "cpu/blocks.h"
#include "cpu/class_sums.h"
#include "cpu/exponential.h"
#include "cpu/frame_tile.h"
#include "cpu/frames.h"

namespace {

// Frames from one renewal of the exponents to the next.
constexpr int renewal_interval = 16;

// A value falls by no more than the least probability in each of these frames.
// It may begin so low that an alpha times a beta stays above 2^-1000. It rises
// so little that what a double's range cuts off is nothing next to it.
constexpr float least_probability = 0x1p-48f;
constexpr float greatest_probability = 16;
constexpr int least_product = -1000;
constexpr double greatest_renewed = 0x1p1000;
constexpr double greatest_log2_scale = 2048;

constexpr int64_t block_down(int64_t i) {
  return i & -block_size<double>;
}

constexpr int64_t block_up(int64_t i) {
  return block_down(i + block_size<double> - 1);
}

inline Block<double> power_of_two(Block<int64_t> e) {
  return std::bit_cast<Block<double>>((e + 1023) << 52);
}

inline Block<int64_t> exponent_bits(Block<double> x) {
  return std::bit_cast<Block<int64_t>>(x) >> 52;
}

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

// A row of states; the blank before all labels is blank[-1], and exponent[-1]
// its exponent. Labels that have no probability yet have the exponent of those
// that will give them some.
struct ScaledStates {
  double* blank;
  double* label;
  int64_t* exponent;

  Extended<float> at(double m, int64_t i) const {
    auto bits = std::bit_cast<int64_t>(m);
    if (bits == 0) {
      return zero<float>();
    }
    constexpr int64_t fraction = (int64_t(1) << 52) - 1;
    constexpr int64_t one = int64_t(1023) << 52;
    return {
        float(std::bit_cast<double>((bits & fraction) | one)),
        int32_t(exponent[i] + (bits >> 52) - 1023)};
  }
};

template <typename In>
class ScaledRun {
 public:
  ScaledRun(const Frames<In>& frames, LatticeWorkspace workspace)
      : frames_(frames),
        S_(frames.S),
        row_end_(block_up(frames.S)),
        pitch_(row_end_ + 2 * block_size<double>),
        label_pitch_(round_up(frames.S)),
        tile_(frames, workspace) {
    constexpr int64_t width = block_size<double>;
    auto take = [&] { return workspace.take<double>(pitch_) + width; };
    jump_ = take();
    ratio_ = take();
    scale_ = take();
    work_ = {take(), take(), workspace.take<int64_t>(pitch_) + width};
    alphas_ = workspace.take<double>(frames.run * 2 * pitch_) + width;
    int renewals = (frames.run - 1) / renewal_interval + 1;
    exponents_ = workspace.take<int64_t>(renewals * pitch_) + width;
    label_ = workspace.take<float>(round_up(frames.run) * label_pitch_);
    blank_ = workspace.take<float>(row_pitch(frames.run));
    log2_scale_ = workspace.take<float>(row_pitch(frames.run));
    blanks_ = workspace.take<float>(row_pitch(frames.run));
    totals_ = workspace.take<float>(row_pitch(frames.run));
    share_ = workspace.take<float>(row_pitch(frames.run));
  }

  // An upper bound of the workspace.
  static size_t bytes(int64_t C, size_t pitch, size_t run) {
    size_t rows = 6 + 2 * run + run / renewal_interval + 1;
    return (rows * sizeof(double) + round_up(run) * sizeof(float)) * pitch +
        5 * row_pitch(run) * sizeof(float) + 16 * 64 +
        FrameTile<In>::bytes(smaller<int64_t>(C, 2 * pitch), run);
  }

  // Takes alpha from the frame before the run to the run's last, or leaves it
  // and returns false. Normalises the run's frames before, if they are logits.
  bool forward(int begin, int end, States<float> alpha, Divisor& divisor) {
    bool kept = prepare(begin, end, &divisor) && read_alpha(alpha);
    for (int t = begin; t < end && kept; ++t) {
      if (t % renewal_interval == 0) {
        kept = renew_alpha(t, work_, work_);
      }
      step_forward(t, work_, work_);
    }
    if (kept && renew_alpha(end, work_, work_)) {
      write(frames_.band(end - 1), alpha);
      return true;
    }
    return false;
  }

  // Keeps alpha of every frame, from the one before the run on.
  bool keep_alphas(int begin, int end, States<float> before) {
    bool kept = prepare(begin, end, nullptr) && read_alpha(before);
    auto previous = work_;
    for (int t = begin; t < end && kept; ++t) {
      auto next = alpha(t);
      if (t % renewal_interval == 0) {
        ScaledStates renewed = {work_.blank, work_.label, next.exponent};
        kept = renew_alpha(t, previous, renewed);
        previous = renewed;
      }
      step_forward(t, previous, next);
      previous = next;
    }
    return kept && renew_alpha(end, previous, work_);
  }

  // Z, from the last frame's alpha.
  Extended<float> evidence() const {
    auto last = alpha(frames_.T - 1);
    double m = last.blank[S_ - 1] + (S_ > 0 ? last.label[S_ - 1] : 0.0);
    return last.at(m, S_ - 1);
  }

  // Finds the posteriors from those alphas, and takes `weighted`, beta p of the
  // frame after the run, to the run's first.
  bool posteriors(
      int begin,
      int end,
      Extended<float> inverse_z,
      States<float> weighted) {
    bool kept = read_weighted(end, weighted);
    for (int t = end - 1; t >= begin && kept; --t) {
      if (t == end - 1 || (t + 1) % renewal_interval == 0) {
        kept = renew_weighted(t);
        set_scale(t, inverse_z);
      }
      step_back(t);
    }
    if (!kept || !renew(begin, work_, work_)) {
      return false;
    }
    Band b = frames_.band(end - 1);
    const float* gamma = label(end - 1);
    float total = blanks_[end - 1 - begin];
    for (int64_t i = b.begin; i < b.end; ++i) {
      total += gamma[i];
    }
    // The same in all frames of the run, but for a double's rounding.
    std::fill(totals_, totals_ + round_up(end - begin), total);
    if (!(total > 0.5f && total < 2.0f)) {
      return false;
    }
    write(frames_.band(begin), weighted);
    return true;
  }

  Posteriors<float> posteriors(int t) const {
    int64_t j = t - begin_;
    auto* tile = frames_.is_dense ? tile_.tile(j / tile_.frames) : nullptr;
    return {label(t), label_pitch_, blanks_ + j, totals_ + j, tile, share_ + j};
  }

 private:
  // False where a score is out of the limits.
  bool prepare(int begin, int end, Divisor* divisor) {
    begin_ = begin;
    for (int64_t i = -1; i < row_end_; ++i) {
      jump_[i] = frames_.skippable(i + 1);
    }
    least_ = filled(std::numeric_limits<int32_t>::max());
    greatest_ = filled(std::numeric_limits<int32_t>::min());
    divisor = frames_.with_logits ? divisor : nullptr;
    bool kept = true;
    if (frames_.is_dense) {
      for (int t = begin; t < end; t += tile_.frames) {
        kept &= emit_tile(t, smaller(t + tile_.frames, end), divisor);
      }
    } else {
      kept = emit(end, divisor);
    }
    // As integers, numbers from 0 up are in order, and NaN is outside.
    int32_t least = least_[0], greatest = greatest_[0];
    for (int64_t j = 1; j < block_size<int32_t>; ++j) {
      least = smaller<int32_t>(least, least_[j]);
      greatest = larger<int32_t>(greatest, greatest_[j]);
    }
    if (!kept || least < std::bit_cast<int32_t>(least_probability) ||
        greatest > std::bit_cast<int32_t>(greatest_probability)) {
      return false;
    }
    int log2_least = smaller((least >> 23) - 127, 0);
    least_log2_ = (least_product - renewal_interval * log2_least) / 2;
    least_renewed_ = std::ldexp(1.0, least_log2_);
    return true;
  }

  void watch(Block<float> p) {
    auto bits = std::bit_cast<Block<int32_t>>(p);
    least_ = bits < least_ ? bits : least_;
    greatest_ = bits > greatest_ ? bits : greatest_;
  }

  // The probabilities that each frame gives the blank and the labels; of
  // logits, as multiples of 2^log2_scale.
  bool emit(int end, Divisor* divisor) {
    int count = end - begin_;
    bool kept = true;
    for (int j = 0; j < count; ++j) {
      int t = begin_ + j;
      if (divisor) {
        frames_.normalise(t, *divisor);
      }
      log2_scale_[j] = float(frames_.log2_scale(t));
      kept &= std::abs(log2_scale_[j]) <= greatest_log2_scale;
      blank_[j] = frames_.blank_score(t);
      frames_.gather(t, first_emitted(t), last_emitted(t), label(t));
    }
    for (int j = count; j < round_up(count); ++j) {
      log2_scale_[j] = log2_scale_[count - 1];
      blank_[j] = blank_[count - 1];
    }
    if (!kept) {
      return false;
    }
    auto emit_block = [&](float* x, const ScaledExp& exp) {
      Block<float> p = exp(load_block(x));
      store_block(x, p, block_size<float>);
      watch(p);
    };
    for (int j = 0; j < count; ++j) {
      int t = begin_ + j;
      float* row = label(t);
      ScaledExp exp(filled(log2_scale_[j]));
      int64_t last = last_emitted(t);
      for (int64_t i = first_emitted(t); i < last; i += block_size<float>) {
        emit_block(row + i, exp);
      }
    }
    for (int j = 0; j < count; j += block_size<float>) {
      emit_block(blank_ + j, ScaledExp(load_block(log2_scale_ + j)));
    }
    return true;
  }

  // The same for the frames [begin, end), by way of the probabilities of all
  // classes.
  bool emit_tile(int begin, int end, Divisor* divisor) {
    constexpr int frames = FrameTile<In>::frames;
    // The loss has no use for a tile afterwards.
    tile_.load(begin, end, divisor ? 0 : (begin - begin_) / frames);
    float* share = share_ + (begin - begin_);
    if (!frames_.with_logits) {
      tile_.exponentiate(Block<float>{});
      store_block(share, filled(1.0f), frames);
    } else if (divisor) {
      auto greatest = tile_.greatest();
      auto scale = whole_log2(greatest);
      if (!is_moderate(scale)) {
        for (int t = begin; t < end; ++t) {
          frames_.normalise(t, *divisor);
        }
        return false;
      }
      tile_.exponentiate(scale);
      // As multiples of which the normaliser has its sum.
      auto multiple = 1 / ScaledExp(scale)(greatest);
      double sums[frames];
      tile_.sum(sums);
      double product = 1; // of a few, each near the number of classes at most
      for (int j = 0; j < end - begin; ++j) {
        product *= sums[j];
        frames_.normaliser(begin + j) = {
            greatest[j], float(sums[j]) * multiple[j]};
      }
      divisor->multiply(product, 0);
    } else {
      Block<float> greatest, sums;
      for (int j = 0; j < frames; ++j) {
        auto z = frames_.normaliser(smaller(begin + j, end - 1));
        greatest[j] = z.max;
        sums[j] = z.sum;
      }
      auto scale = whole_log2(greatest);
      if (!is_moderate(scale)) {
        return false;
      }
      tile_.exponentiate(scale);
      auto multiple = ScaledExp(scale)(greatest);
      store_block(share, 1 / (sums * multiple), frames);
    }
    int64_t last = last_emitted(end - 1);
    for (int64_t i = first_emitted(begin); i < last; i += frames) {
      Block<float> p[frames];
      for (int j = 0; j < frames; ++j) {
        p[j] = tile_[frames_.padded_labels[i + j]];
        watch(p[j]);
      }
      transpose(p);
      for (int j = 0; j < frames; ++j) {
        store_block(label(begin + j) + i, p[j], frames);
      }
    }
    auto p = tile_[frames_.blank];
    watch(p);
    store_block(blank_ + (begin - begin_), p, frames);
    return true;
  }

  // log2 exp(x), whole where it is moderate.
  static Block<float> whole_log2(Block<float> x) {
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const Block<float> round = filled(12582912.0f);
    return (x * float(log2_e) + round) - round;
  }

  // NaN is not.
  static bool is_moderate(Block<float> log2_scale) {
    auto most = filled(float(greatest_log2_scale));
    auto inside = (log2_scale <= most) & (log2_scale >= -most);
    return !any(~std::bit_cast<Block<int64_t>>(inside));
  }

  // A NaN among log-probabilities counts also where no alignment passes; among
  // logits the normaliser has found it.
  int64_t first_emitted(int t) const {
    return frames_.with_logits ? frames_.band(t).first_group() : 0;
  }

  int64_t last_emitted(int t) const {
    return frames_.with_logits ? frames_.band(t).last_group() : round_up(S_);
  }

  // The blocks around the band.
  int64_t first_block(int t) const {
    return block_down(frames_.band(t).begin);
  }

  int64_t last_block(int t) const {
    return block_up(frames_.band(t).end);
  }

  float* label(int t) const {
    return label_ + (t - begin_) * label_pitch_;
  }

  ScaledStates alpha(int t) const {
    int64_t j = t - begin_;
    double* row = alphas_ + j * 2 * pitch_;
    return {row, row + pitch_, exponents_ + j / renewal_interval * pitch_};
  }

  // Equation 6. `next` may be `previous`.
  void step_forward(int t, ScaledStates previous, ScaledStates next) const {
    constexpr int64_t width = block_size<double>;
    const float* p = label(t);
    double p_blank = blank_[t - begin_];
    int64_t begin = first_block(t);
    int64_t end = last_block(t);
    // What the label before the block may pass on, in its last place.
    Block<double> before = {};
    double first = 0;
    if (begin == 0) {
      before = filled(previous.blank[-1]);
      first = previous.blank[-1] * p_blank;
    } else if (begin > first_block(t - 1)) {
      before = leaving(previous, begin - width);
    }
    next.blank[-1] = first;
    for (int64_t i = begin; i < end; i += width) {
      auto blank = load_block(previous.blank + i);
      auto label = load_block(previous.label + i);
      auto left = blank + label * load_block(jump_ + i);
      auto p_label = load_widened(p + i);
      // The next step waits for this one: its ratio times p does not.
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

  // What goes from the labels of a block to those after them.
  Block<double> leaving(ScaledStates states, int64_t i) const {
    return load_block(states.blank + i) +
        load_block(states.label + i) * load_block(jump_ + i);
  }

  // One frame back in time, from beta(t + 1) p(t + 1) to beta(t) p(t), where
  // beta(t) excludes frame t's own emission (equation 10, one emission less, so
  // that gamma = alpha beta / Z needs no division by it). gamma takes the place
  // of p.
  void step_back(int t) {
    constexpr int64_t width = block_size<double>;
    auto [alpha_blank, alpha_label, exponent] = alpha(t);
    float* p = label(t);
    double p_blank = blank_[t - begin_];
    int64_t begin = first_block(t);
    int64_t end = last_block(t);
    Block<double> gamma_blanks = {};
    Block<double> after = {}; // the label after the block, in the first place
    if (t + 1 < frames_.T && end < last_block(t + 1)) {
      after = load_block(work_.label + end);
    }
    for (int64_t i = end - width; i >= begin; i -= width) {
      auto blank = load_block(work_.blank + i);
      auto label = load_block(work_.label + i);
      auto entered = shifted<width - 1>(label, after) * load_block(ratio_ + i);
      auto beta_blank = blank + entered;
      auto beta_label = blank + label + entered * load_block(jump_ + i);
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

  // Gives the states of frame t new exponents, such that their mantissas are
  // near 1. False where they are out of the limits.
  bool renew(int t, ScaledStates from, ScaledStates to) const {
    constexpr int64_t width = block_size<double>;
    int64_t begin = first_block(t);
    int64_t end = smaller(last_block(t) + width, row_end_);
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
  bool renew_alpha(int t, ScaledStates from, ScaledStates to) {
    bool kept = renew(t - 1, from, to);
    int64_t begin = first_block(t - 1);
    int64_t end = last_block(t + renewal_interval - 1);
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
    return kept;
  }

  // And beta p of frame t + 1, before the frames from t back to the last that
  // began such frames.
  bool renew_weighted(int t) {
    int following = smaller(t + 1, frames_.T - 1);
    bool kept = renew(following, work_, work_);
    int64_t begin = first_block(t - t % renewal_interval);
    int64_t end = last_block(following);
    front_ = smaller(front_, frames_.band(following).end - 1);
    while (front_ >= 0 &&
           work_.blank[front_ - 1] + work_.label[front_ - 1] > 0) {
      --front_;
    }
    for (int64_t i = front_ - 1; i >= begin - 1; --i) {
      work_.exponent[i] = work_.exponent[front_];
    }
    set_ratios(work_.exponent, 1, begin, end);
    ratio_[end - 1] = 0;
    return kept;
  }

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

  // What alpha beta is multiplied by in the frames from t back. It cannot be
  // greater than 2^1000 but where one of them is 0.
  void set_scale(int t, Extended<float> inverse_z) {
    constexpr int64_t width = block_size<double>;
    const int64_t* alpha_exponent = alpha(t).exponent;
    auto scale = [&](Block<int64_t> e) {
      e += int64_t(inverse_z.e);
      e = e < -1023 ? filled<int64_t>(-1023) : e;
      e = e > 1000 ? filled<int64_t>(1000) : e;
      return power_of_two(e) * double(inverse_z.m);
    };
    int64_t begin = first_block(t - t % renewal_interval);
    int64_t end = last_block(t);
    for (int64_t i = begin; i < end; i += width) {
      auto e = load_block(alpha_exponent + i) + load_block(work_.exponent + i);
      store_block(scale_ + i, scale(e), width);
    }
    scale_[-1] = scale(filled(alpha_exponent[-1] + work_.exponent[-1]))[0];
  }

  bool read_alpha(States<float> alpha) {
    Band b = frames_.band(begin_ - 1);
    if (!read(alpha, b.begin > 0 ? b.begin : -1, b.end)) {
      return false;
    }
    front_ = row_end_ - 1;
    while (is_zero(front_)) {
      --front_;
    }
    int64_t first = -1;
    while (is_zero(first)) {
      ++first;
    }
    int64_t known = work_.exponent[first];
    for (int64_t i = -1; i < row_end_; ++i) {
      known = work_.exponent[i] = is_zero(i) ? known : work_.exponent[i];
    }
    return true;
  }

  bool read_weighted(int end, States<float> weighted) {
    if (!read(weighted, -1, smaller<int64_t>(S_, end + 1))) {
      return false;
    }
    front_ = -1;
    while (is_zero(front_)) {
      ++front_;
    }
    int64_t last = row_end_ - 1;
    while (is_zero(last)) {
      --last;
    }
    int64_t known = work_.exponent[last];
    for (int64_t i = row_end_ - 1; i >= -1; --i) {
      known = work_.exponent[i] = is_zero(i) ? known : work_.exponent[i];
    }
    return true;
  }

  bool is_zero(int64_t i) const {
    return work_.blank[i] + work_.label[i] == 0;
  }

  // The states of labels [begin, end), all others being zero. False where a
  // label and its blank are too far apart for one exponent, or all is zero.
  bool read(States<float> from, int64_t begin, int64_t end) {
    for (int64_t i = -1; i < row_end_; ++i) {
      work_.blank[i] = work_.label[i] = 0;
      work_.exponent[i] = 0;
    }
    bool kept = true;
    bool found = false;
    for (int64_t i = begin; i < end; ++i) {
      auto blank = from.blank[i];
      auto label = i < 0 ? zero<float>() : from.label[i];
      int32_t e = larger(blank.e, label.e);
      auto mantissa = [&](Extended<float> a) {
        bool is_zero = a.e < nearly_zero;
        kept &= is_zero || a.e - e > least_log2_;
        return is_zero ? 0 : a.m * power_of_two<double>(a.e - e);
      };
      work_.blank[i] = mantissa(blank);
      work_.label[i] = mantissa(label);
      work_.exponent[i] = e;
      found |= !is_zero(i);
    }
    return kept && found;
  }

  void write(Band b, States<float> to) const {
    to.clear(-lanes, round_up(S_) + lanes);
    for (int64_t i = b.begin > 0 ? b.begin : -1; i < b.end; ++i) {
      to.blank.set(i, work_.at(work_.blank[i], i));
      to.label.set(i, work_.at(work_.label[i], i));
    }
  }

  const Frames<In>& frames_;
  const int64_t S_;
  const int64_t row_end_; // of the blocks that hold all labels
  const int64_t pitch_; // with a block before and one after
  const int64_t label_pitch_; // of rows of labels in whole groups
  FrameTile<In> tile_;
  int begin_ = 0; // of the run
  Block<int32_t> least_; // bits of a probability of the run
  Block<int32_t> greatest_;
  int64_t front_ =
      -1; // the last label that alpha has reached, or beta the first
  int least_log2_ = 0; // of a renewed value
  double least_renewed_ = 1;
  double* jump_; // (S) 1 where label i + 1 may follow label i without a blank
  double* ratio_; // (S) of the scale that a neighbour's value comes from
  double* scale_; // (S) of alpha beta, including 1 / Z
  ScaledStates work_;
  double* alphas_; // (run, 2, S)
  int64_t* exponents_; // (renewals, S) of alpha
  float* label_; // (run, S) p of the labels, then gamma
  float* blank_; // (run) p of the blank
  float* log2_scale_; // (run) of p
  float* blanks_; // (run) gamma of all blanks
  float* totals_; // (run) gamma of all states
  float* share_; // (run) what the softmax is of a tile
};

// The range of a double is all that double input has.
template <>
class ScaledRun<double> {
 public:
  ScaledRun(const Frames<double>& frames, LatticeWorkspace) : frames_(frames) {}

  static size_t bytes(int64_t, size_t, size_t) {
    return 0;
  }

  bool forward(int begin, int end, States<double>, Divisor& divisor) {
    for (int t = begin; t < end && frames_.with_logits; ++t) {
      frames_.normalise(t, divisor);
    }
    return false;
  }

  bool keep_alphas(int, int, States<double>) {
    return false;
  }

  Extended<double> evidence() const {
    return zero<double>();
  }

  bool posteriors(int, int, Extended<double>, States<double>) {
    return false;
  }

  Posteriors<double> posteriors(int) const {
    return {};
  }

 private:
  const Frames<double>& frames_;
};

} // namespace
