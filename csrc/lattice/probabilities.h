// The probabilities of the blank and the labels in the frames of a segment, as
// floats. For logits they are exp(logit) / 2^n, with an integer n for each
// frame. The loss of log-probabilities can have them as doubles.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "lattice/frame_tile.h"
#include "lattice/frames.h"
#include "simd/blocks.h"
#include "simd/exponential.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

class Probabilities {
 public:
  Probabilities(const Frames<float>& frames, Workspace& workspace)
      : pitch(round_up(frames.S)), frames_(frames), tile_(frames, workspace) {
    label_ = workspace.take<float>(round_up(frames.segment_frames) * pitch);
    blank_ = workspace.take<float>(row_pitch(frames.segment_frames));
    log2_scale_ = workspace.take<float>(row_pitch(frames.segment_frames));
    inverse_sum_ = workspace.take<float>(row_pitch(frames.segment_frames));
    classes_ = workspace.take<double>(frames.is_dense ? round_up(frames.C) : 0);
  }

  // Computes the probabilities in the frames [begin, end). With a divisor, for
  // logits, also finds the frames' normalisers. Keeps the softmax, if it is
  // for_gradient. False if a frame's greatest logit is too far from 0.
  bool compute(int begin, int end, Divisor* divisor, bool for_gradient) {
    begin_ = begin;
    for_gradient_ = for_gradient;
    least_ = filled(std::numeric_limits<int32_t>::max());
    greatest_ = filled(std::numeric_limits<int32_t>::min());
    divisor = frames_.with_logits ? divisor : nullptr;
    if (!frames_.is_dense) {
      return compute_labels(end, divisor);
    }
    bool found = true;
    for (int t = begin; t < end; t += tile_.width) {
      found &= compute_tile(t, smaller(t + tile_.width, end), divisor);
    }
    return found;
  }

  // Computes those of log-probabilities in the frames [begin, end) as doubles:
  // those of frame t's labels at rows + (t - begin) * pitch, and the blank's
  // before them, at index -1. False if one is out of [least, greatest].
  bool compute_doubles(
      int begin,
      int end,
      double* rows,
      int64_t pitch,
      double least,
      double greatest) {
    constexpr int64_t width = block_size<double>;
    begin_ = begin;
    Block<int64_t> within = filled<int64_t>(-1);
    Block<double> found = filled(1.0);
    auto track_row = [&](const double* row) {
      for (int64_t i = 0; i < frames_.S; i += width) {
        Block<double> p = load_block(row + i);
        within &= std::bit_cast<Block<int64_t>>(p <= greatest);
        found = smaller(p, found);
      }
      within &= row[-1] <= greatest ? -1 : 0;
      found = smaller(filled(row[-1]), found);
    };
    // A row is read some frames after it has been written: blocks of numbers
    // that are still being written one by one would be waited for.
    constexpr int delay = 4;
    for (int t = begin; t < end + delay; ++t) {
      double* row = rows + (t - begin) * pitch;
      if (t < end) {
        compute_doubles(t, row);
      }
      if (t >= begin + delay) {
        track_row(row - delay * pitch);
      }
    }
    double least_found = 1;
    for (int64_t j = 0; j < width; ++j) {
      least_found = smaller(found[j], least_found);
      greatest = within[j] != 0 ? greatest : 0;
    }
    log2_least_ = std::ilogb(least_found);
    return greatest > 0 && least_found >= least;
  }

  // Whether all probabilities lie in [least, greatest].
  bool are_within(float least, float greatest) {
    bool within = true;
    int32_t least_found = least_[0];
    // Floats from 0 up have the same order as their bits; NaN is above them
    // all.
    for (int64_t j = 0; j < block_size<int32_t>; ++j) {
      within &= least_[j] >= std::bit_cast<int32_t>(least);
      within &= greatest_[j] <= std::bit_cast<int32_t>(greatest);
      least_found = smaller<int32_t>(least_found, least_[j]);
    }
    log2_least_ = (least_found >> 23) - 127;
    return within;
  }

  // The exponent of the least probability, if are_within() or compute_doubles()
  // has been true.
  int log2_least() const {
    return log2_least_;
  }

  // (S) of frame t. May be overwritten when they are used for the last time.
  float* label(int t) const {
    return label_ + (t - begin_) * pitch;
  }

  float blank(int t) const {
    return blank_[t - begin_];
  }

  // The softmax from frame t on, as in Posteriors.
  const Block<float>* unnormalised(int t) const {
    return frames_.is_dense ? tile_.tile((t - begin_) / tile_.width) : nullptr;
  }

  const float* inverse_sum(int t) const {
    return inverse_sum_ + (t - begin_);
  }

  const int64_t pitch; // from one frame's labels to the next, in whole groups

 private:
  // With few classes all are exponentiated, so that the labels of a class share
  // the result.
  void compute_doubles(int t, double* row) {
    constexpr int64_t width = block_size<double>;
    const int64_t S = frames_.S;
    if (frames_.is_dense && frames_.C < S) {
      exponentiate(frames_.scores.frame(t), frames_.C, classes_);
      const int32_t* labels = frames_.padded_labels;
      UNROLLED
      for (int64_t i = 0; i < S; ++i) {
        row[i] = classes_[labels[i]];
      }
      for (int64_t i = S; i % width != 0; ++i) {
        row[i] = classes_[frames_.blank];
      }
      row[-1] = classes_[frames_.blank];
      return;
    }
    float* x = label(t);
    frames_.gather(t, 0, round_up(S), x);
    exponentiate(x, S, row);
    row[-1] = exact_exp(filled(double(frames_.blank_score(t))))[0];
  }

  // out[i] = exp(x[i]) in whole blocks.
  static void exponentiate(const float* x, int64_t count, double* out) {
    constexpr int64_t width = block_size<double>;
    for (int64_t i = 0; i < count; i += width) {
      Block<double> score = {};
      if (i + width <= count) {
        score = load_widened(x + i);
      } else {
        for (int64_t j = i; j < count; ++j) {
          score[j - i] = x[j];
        }
      }
      store_block(out + i, exact_exp(score), width);
    }
  }

  // Takes p into the least and the greatest probability.
  void track_range(Block<float> p) {
    auto bits = std::bit_cast<Block<int32_t>>(p);
    least_ = smaller(bits, least_);
    greatest_ = larger(bits, greatest_);
  }

  // From the scores of the target's labels and the blank alone.
  bool compute_labels(int end, Divisor* divisor) {
    int count = end - begin_;
    bool moderate = true;
    for (int j = 0; j < count; ++j) {
      int t = begin_ + j;
      if (divisor) {
        frames_.normalise(t, *divisor);
      }
      log2_scale_[j] = float(frames_.log2_scale(t));
      moderate &= std::abs(log2_scale_[j]) <= greatest_log2_scale;
      blank_[j] = frames_.blank_score(t);
      frames_.gather(t, first_label(t), last_label(t), label(t));
    }
    for (int j = count; j < round_up(count); ++j) {
      log2_scale_[j] = log2_scale_[count - 1];
      blank_[j] = blank_[count - 1];
    }
    if (!moderate) {
      return false;
    }
    auto exponentiate = [&](float* x, const ScaledExp& exp) {
      Block<float> p = exp(load_block(x));
      store_block(x, p, block_size<float>);
      track_range(p);
    };
    for (int j = 0; j < count; ++j) {
      int t = begin_ + j;
      float* row = label(t);
      ScaledExp exp(filled(log2_scale_[j]));
      int64_t last = last_label(t);
      for (int64_t i = first_label(t); i < last; i += block_size<float>) {
        exponentiate(row + i, exp);
      }
    }
    for (int j = 0; j < count; j += block_size<float>) {
      exponentiate(blank_ + j, ScaledExp(load_block(log2_scale_ + j)));
    }
    return true;
  }

  // From the probabilities of all classes, for the frames [begin, end) of a
  // tile.
  bool compute_tile(int begin, int end, Divisor* divisor) {
    constexpr int width = FrameTile::width;
    // The gradient uses the tiles later; the loss reuses the memory of the
    // first.
    tile_.load(begin, end, for_gradient_ ? (begin - begin_) / width : 0);
    if (!exponentiate_tile(begin, end, divisor)) {
      for (int t = begin; t < end && divisor; ++t) {
        frames_.normalise(t, *divisor);
      }
      return false;
    }
    int64_t last = last_label(end - 1);
    for (int64_t i = first_label(begin); i < last; i += width) {
      Block<float> p[width];
      for (int j = 0; j < width; ++j) {
        p[j] = tile_[frames_.padded_labels[i + j]];
        track_range(p[j]);
      }
      transpose(p);
      for (int j = 0; j < width; ++j) {
        store_block(label(begin + j) + i, p[j], width);
      }
    }
    auto p = tile_[frames_.blank];
    track_range(p);
    store_block(blank_ + (begin - begin_), p, width);
    return true;
  }

  // Turns the tile's scores into probabilities. With a divisor finds the
  // frames' normalisers.
  bool exponentiate_tile(int begin, int end, Divisor* divisor) {
    constexpr int width = FrameTile::width;
    Block<float> greatest = {};
    if (divisor) {
      greatest = tile_.greatest();
    } else if (frames_.with_logits) {
      greatest =
          of_normalisers(begin, end, [](auto saved) { return saved.max; });
    }
    auto log2_scale = whole_log2(greatest);
    if (!is_moderate(log2_scale)) {
      return false;
    }
    // exp(x) / 2^log2_scale = of_greatest * exp(x - greatest); the normaliser's
    // sum is that of exp(x - greatest).
    auto of_greatest = ScaledExp(log2_scale)(greatest);
    if (divisor) {
      find_normalisers(begin, end, *divisor, log2_scale, greatest, of_greatest);
    } else {
      tile_.exponentiate(log2_scale);
    }
    if (for_gradient_) {
      Block<float> sum = filled(1.0f);
      if (frames_.with_logits) {
        sum =
            of_normalisers(begin, end, [](auto saved) { return saved.sum(); });
      }
      store_block(
          inverse_sum_ + (begin - begin_), 1 / (sum * of_greatest), width);
    }
    return true;
  }

  // f(normaliser) of the saved normaliser of each of a tile's frames.
  template <typename F>
  Block<float> of_normalisers(int begin, int end, F f) const {
    Block<float> found;
    for (int j = 0; j < FrameTile::width; ++j) {
      found[j] = f(frames_.normaliser(smaller(begin + j, end - 1)));
    }
    return found;
  }

  // Exponentiates the tile, saves its frames' normalisers and multiplies the
  // divisor by them.
  void find_normalisers(
      int begin,
      int end,
      Divisor& divisor,
      Block<float> log2_scale,
      Block<float> greatest,
      Block<float> of_greatest) {
    constexpr int width = FrameTile::width;
    auto inverse = 1 / of_greatest;
    double sums[width];
    tile_.exponentiate_and_sum(log2_scale, sums);
    double product = 1; // cannot overflow: at most 16 factors of about C each
    for (int j = 0; j < end - begin; ++j) {
      product *= sums[j];
      frames_.normaliser(begin + j) = {
          greatest[j], float(sums[j] - of_greatest[j]) * inverse[j]};
    }
    divisor.multiply(product, 0);
  }

  // Within the limits of ScaledExp in all frames; NaN is not.
  static bool is_moderate(Block<float> log2_scale) {
    auto moderate = (log2_scale <= filled(greatest_log2_scale)) &
        (log2_scale >= filled(-greatest_log2_scale));
    bool all = true;
    for (int64_t j = 0; j < block_size<float>; ++j) {
      all &= moderate[j] != 0;
    }
    return all;
  }

  // The labels whose probabilities are computed in frame t. A NaN among the
  // log-probabilities counts also where no alignment passes, so those of all
  // labels are; among logits the normaliser finds it, and the band is enough.
  int64_t first_label(int t) const {
    return frames_.with_logits ? frames_.band(t).groups_begin() : 0;
  }

  int64_t last_label(int t) const {
    auto band = frames_.band(t);
    return frames_.with_logits ? band.groups_end() : band.row_end;
  }

  const Frames<float>& frames_;
  FrameTile tile_;
  int begin_ = 0; // of the segment
  bool for_gradient_ = false; // see compute()
  Block<int32_t> least_; // bits of the segment's least probability
  Block<int32_t> greatest_;
  float* label_; // (segment_frames, S)
  float* blank_; // (segment_frames)
  float* log2_scale_; // (segment_frames)
  float* inverse_sum_; // (segment_frames)
  double* classes_; // (C) of one frame, if all classes are computed
  int log2_least_ = 0; // see log2_least()
};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
