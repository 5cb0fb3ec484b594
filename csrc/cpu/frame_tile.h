// As many frames as a block has places, side by side: a class's scores in all
// of them are a block. For targets that use a good part of the classes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "cpu/blocks.h"
#include "cpu/exponential.h"
#include "cpu/frames.h"

namespace {

template <typename In>
class FrameTile {
 public:
  static constexpr int frames = block_size<float>;

  FrameTile(const Frames<In>& of, LatticeWorkspace& workspace)
      : frames_(of), pitch_(of.is_dense ? round_up(of.C) : 0) {
    classes_ = workspace.take<Block<float>>(pitch_);
    rows_ = workspace.take<float>(frames * pitch_);
  }

  // An upper bound of the workspace.
  static size_t bytes(int64_t C) {
    return 2 * round_up(C) * sizeof(Block<float>) + 2 * 64;
  }

  // The scores of the frames [begin, end), the last for the rest of the tile.
  void load(int begin, int end) {
    const float* x[frames];
    for (int j = 0; j < frames; ++j) {
      x[j] = frames_.frame(smaller(begin + j, end - 1), rows_ + j * pitch_);
    }
    for (int64_t c = 0; c < frames_.C; c += frames) {
      Block<float>* block = classes_ + c;
      int64_t count = smaller<int64_t>(frames_.C - c, frames);
      for (int j = 0; j < frames; ++j) {
        block[j] = load_some(x[j] + c, count);
      }
      transpose(block);
    }
  }

  Block<float> greatest() const {
    auto greatest = filled(-std::numeric_limits<float>::infinity());
    for (int64_t c = 0; c < frames_.C; ++c) {
      greatest = classes_[c] > greatest ? classes_[c] : greatest;
    }
    return greatest;
  }

  // Takes exp(x) / 2^log2_scale for the scores.
  void exponentiate(Block<float> log2_scale) {
    ScaledExp exp(log2_scale);
    for (int64_t c = 0; c < frames_.C; ++c) {
      classes_[c] = exp(classes_[c]);
    }
  }

  // sums[j] of frame j. In float many classes' last digits would be lost.
  void sum(double* sums) const {
    Block<double> low = {}, high = {};
    for (int64_t c = 0; c < pitch_; c += lanes) {
      Block<float> some = {};
      for (int64_t i = c; i < smaller(c + lanes, frames_.C); ++i) {
        some += classes_[i];
      }
      float few[frames];
      store_block(few, some, frames);
      low += load_widened(few);
      high += load_widened(few + frames / 2);
    }
    store_block(sums, low, frames / 2);
    store_block(sums + frames / 2, high, frames / 2);
  }

  const Block<float>& operator[](int64_t c) const {
    return classes_[c];
  }

 private:
  const Frames<In>& frames_;
  const int64_t pitch_;
  Block<float>* classes_; // (C, frames)
  float* rows_; // (frames, C), of frames that cannot be used in place
};

} // namespace
