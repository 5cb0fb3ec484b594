// As many frames as a block has places, side by side: a class's scores in all
// of them are a block. For classes that are few, or of
// which a target uses a good part.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "lattice/frames.h"
#include "simd/blocks.h"
#include "simd/exponential.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

class FrameTile {
 public:
  static constexpr int frames = block_size<float>;

  FrameTile(const Frames<float>& of, Workspace& workspace)
      : frames_(of), pitch_(of.is_dense ? round_up(of.C) : 0) {
    tiles_ = workspace.take<Block<float>>(
        round_up(of.segment_frames) / frames * pitch_);
    rows_ = workspace.take<float>(frames * pitch_);
  }

  // The scores of the frames [begin, end), the last for the rest of the tile,
  // into the memory of tile `index`. Frame by frame, since frames may lie so
  // far apart, and so evenly, that few of them are in a cache together.
  void load(int begin, int end, int index) {
    classes_ = tiles_ + index * pitch_;
    for (int j = 0; j < frames; ++j) {
      int t = smaller(begin + j, end - 1);
      StoredFrame later = frames_.scores.stored(t + frames);
      float* row = rows_ + j * pitch_;
      auto copy = [&](Block<float> block, int64_t c, int64_t) {
        later.fetch(c);
        store_block(row + c, block, frames);
      };
      for_each_block(frames_.scores.frame(t), frames_.C, copy);
      later.fetch(frames_.C - 1);
    }
    for (int64_t c = 0; c < frames_.C; c += frames) {
      for (int j = 0; j < frames; ++j) {
        classes_[c + j] = load_block(rows_ + j * pitch_ + c);
      }
      transpose(classes_ + c);
    }
  }

  Block<float> greatest() const {
    // In chains, so that none waits for the one before. What fills a block
    // after the last class is -inf.
    Block<float> of_chain[chains];
    std::fill_n(
        of_chain, chains, filled(-std::numeric_limits<float>::infinity()));
    for (int64_t c = 0; c < frames_.C; c += chains) {
      for (int k = 0; k < chains; ++k) {
        of_chain[k] = larger(classes_[c + k], of_chain[k]);
      }
    }
    for (int k = 1; k < chains; ++k) {
      of_chain[0] = larger(of_chain[k], of_chain[0]);
    }
    return of_chain[0];
  }

  // Takes exp(x) / 2^log2_scale for the scores.
  void exponentiate(Block<float> log2_scale) {
    ScaledExp exp(log2_scale);
    for (int64_t c = 0; c < frames_.C; ++c) {
      classes_[c] = exp(classes_[c]);
    }
  }

  // The same, with sums[j] of frame j. Next to the greatest class a float would
  // lose the last digits of the others.
  void exponentiate_and_sum(Block<float> log2_scale, double* sums) {
    constexpr int half = frames / 2;
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
  static constexpr int chains = 4;

  const Frames<float>& frames_;
  const int64_t pitch_;
  Block<float>* tiles_; // (segment_frames / frames, C, frames)
  Block<float>* classes_ = nullptr; // (C, frames), of the last tile loaded
  float* rows_; // (frames, C)
};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
