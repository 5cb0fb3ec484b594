// The scores of as many frames as a block has floats, transposed: the block of
// a class holds its scores in all of them, so that exp and sums over classes
// need no operation within a block. For few classes, or those of which a target
// uses a good part.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "lattice/frames.h"
#include "simd/blocks.h"
#include "simd/exponential.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

class FrameTile {
 public:
  static constexpr int width = block_size<float>; // in frames

  FrameTile(const Frames<float>& sequence_frames, Workspace& workspace)
      : frames_(sequence_frames),
        pitch_(frames_.is_dense ? round_up(frames_.C) : 0) {
    tiles_ = workspace.take<Block<float>>(
        round_up(frames_.segment_frames) / width * pitch_);
    rows_ = workspace.take<float>(width * pitch_);
  }

  // Loads the scores of the frames [begin, end) into the memory of tile
  // `index`; the rest of the tile repeats the last frame. The scores are copied
  // frame by frame before they are transposed: frames that are a power of two
  // apart fall into the same cache sets, which hold only a few of them at a
  // time.
  void load(int begin, int end, int index) {
    classes_ = tiles_ + index * pitch_;
    for (int j = 0; j < width; ++j) {
      int t = smaller(begin + j, end - 1);
      StoredFrame later = frames_.scores.stored(t + width);
      float* row = rows_ + j * pitch_;
      auto copy = [&](Block<float> block, int64_t c, int64_t) {
        later.fetch(c);
        store_block(row + c, block, width);
      };
      for_each_block(frames_.scores.frame(t), frames_.C, copy);
      later.fetch(frames_.C - 1);
    }
    for (int64_t c = 0; c < frames_.C; c += width) {
      for (int j = 0; j < width; ++j) {
        classes_[c + j] = load_block(rows_ + j * pitch_ + c);
      }
      transpose(classes_ + c);
    }
  }

  Block<float> greatest() const {
    // Four maxima side by side, so that no comparison waits for the one before.
    // The elements past the last class are -inf.
    Block<float> maximum[maxima];
    std::fill_n(
        maximum, maxima, filled(-std::numeric_limits<float>::infinity()));
    for (int64_t c = 0; c < frames_.C; c += maxima) {
      for (int k = 0; k < maxima; ++k) {
        maximum[k] = larger(classes_[c + k], maximum[k]);
      }
    }
    for (int k = 1; k < maxima; ++k) {
      maximum[0] = larger(maximum[k], maximum[0]);
    }
    return maximum[0];
  }

  // Replaces each score x by exp(x) / 2^log2_scale.
  void exponentiate(Block<float> log2_scale) {
    ScaledExp exp(log2_scale);
    for (int64_t c = 0; c < frames_.C; ++c) {
      classes_[c] = exp(classes_[c]);
    }
  }

  // The same; sums[j] becomes the sum over the classes in frame j. In double:
  // next to the greatest class a float would lose the last digits of the
  // others.
  void exponentiate_and_sum(Block<float> log2_scale, double* sums) {
    constexpr int half = width / 2;
    ScaledExp exp(log2_scale);
    Block<double> low[2] = {}, high[2] = {};
    for (int64_t c = 0; c < frames_.C; ++c) {
      classes_[c] = exp(classes_[c]);
      auto x = reinterpret_cast<const float*>(classes_ + c);
      low[c % 2] += load_widened(x);
      high[c % 2] += load_widened(x + half);
    }
    store_block(sums, low[0] + low[1], half);
    store_block(sums + half, high[0] + high[1], half);
  }

  const Block<float>* tile(int index) const {
    return tiles_ + index * pitch_;
  }

  const Block<float>& operator[](int64_t c) const {
    return classes_[c];
  }

 private:
  static constexpr int maxima = 4;

  const Frames<float>& frames_;
  const int64_t pitch_;
  Block<float>* tiles_; // (segment_frames / width, C, width)
  Block<float>* classes_ = nullptr; // (C, width), of the last tile loaded
  float* rows_; // (width, C)
};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
