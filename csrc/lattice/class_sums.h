// The posteriors of a class: the sums over its labels, for as many frames at
// once as a block has places. In a frame of its own each sum would wait for the
// one before it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "lattice/frames.h"
#include "lattice/workspace.h"
#include "simd/blocks.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

// What frames have of Z: the labels' part, the blanks', and the sum of all. A
// label's posterior is 0 in frames that it cannot be at.
template <typename Real>
struct Posteriors {
  const Real* labels; // (frames, S), `pitch` apart
  int64_t pitch;
  const Real* blanks; // (frames)
  const Real* totals; // (frames)
  // What the softmax is made of, where that is at hand, or null: multiples of
  // it in a tile of all classes, and how much to take of them.
  const Block<Real>* multiples; // (C, frames)
  const Real* share; // (frames)
};

template <typename Real>
class ClassSums {
 public:
  static constexpr int frames = block_size<Real>;

  ClassSums(const Frames<Real>& of, Workspace& workspace)
      : labels_(of.labels),
        S_(of.S),
        C_(of.C),
        blank_(of.blank),
        is_dense_(of.is_dense) {
    int64_t most = round_up(is_dense_ ? C_ : S_ + 1);
    slots_ = workspace.take<int32_t>(S_ + 1);
    classes_ = workspace.take<int32_t>(most);
    slot_of_class_ = workspace.take<int32_t>(C_);
    by_class_ = workspace.take<Block<Real>>(most);
    by_frame_ = workspace.take<Real>(frames * most);
  }

  // Gives each class that occurs a slot, or every class.
  void prepare() {
    if (is_dense_) {
      count_ = C_;
      std::copy(labels_, labels_ + S_, slots_);
      slots_[S_] = blank_;
      std::iota(classes_, classes_ + C_, 0);
      return;
    }
    std::fill(slot_of_class_, slot_of_class_ + C_, -1);
    count_ = 0;
    for (int64_t i = 0; i <= S_; ++i) {
      int32_t c = i < S_ ? labels_[i] : blank_;
      if (slot_of_class_[c] < 0) {
        slot_of_class_[c] = count_;
        classes_[count_++] = c;
      }
      slots_[i] = slot_of_class_[c];
    }
  }

  // Sums the posteriors of `frames` frames, labels [begin, end) in whole
  // groups.
  void sum(Posteriors<Real> gamma, int64_t begin, int64_t end) {
    std::fill(by_class_, by_class_ + count_, Block<Real>{});
    by_class_[slots_[S_]] = load_block(gamma.blanks);
    for (int64_t i = begin; i < end; i += frames) {
      Block<Real> x[frames];
      for (int j = 0; j < frames; ++j) {
        x[j] = load_block(gamma.labels + j * gamma.pitch + i);
      }
      transpose(x);
      int64_t known = smaller<int64_t>(S_ - i, frames);
      for (int64_t j = 0; j < known; ++j) {
        by_class_[slots_[i + j]] += x[j];
      }
    }
  }

  // frame(j) becomes softmax * by_softmax - sums * by_sums of all classes.
  void subtract_from_softmax(
      const Block<Real>* softmax,
      Block<Real> by_softmax,
      Block<Real> by_sums) {
    for (int64_t c = 0; c < C_; c += frames) {
      Block<Real> x[frames];
      for (int j = 0; j < frames; ++j) {
        x[j] = softmax[c + j] * by_softmax - by_class_[c + j] * by_sums;
      }
      lay(x, c);
    }
  }

  // frame(j) becomes sums * scale of the classes that occur, for subtract().
  void scale(Block<Real> scale) {
    for (int64_t k = 0; k < count_; k += frames) {
      Block<Real> x[frames];
      for (int j = 0; j < frames; ++j) {
        x[j] = by_class_[k + j] * scale;
      }
      lay(x, k);
    }
  }

  const Real* frame(int j) const {
    return by_frame_ + j * round_up(count_);
  }

  // row[c] -= frame j's sum of class c, for the classes that occur.
  void subtract(int j, Real* row) const {
    const Real* sums = frame(j);
    UNROLLED
    for (int64_t k = 0; k < count_; ++k) {
      row[classes_[k]] -= sums[k];
    }
  }

 private:
  void lay(Block<Real>* x, int64_t slot) {
    transpose(x);
    for (int j = 0; j < frames; ++j) {
      store_block(by_frame_ + j * round_up(count_) + slot, x[j], frames);
    }
  }

  const int32_t* const labels_;
  const int64_t S_;
  const int64_t C_;
  const int32_t blank_;
  const bool is_dense_;
  int64_t count_ = 0; // of slots
  int32_t* slots_; // (S + 1) of the labels, and of the blank
  int32_t* classes_; // (slots)
  int32_t* slot_of_class_; // (C)
  Block<Real>* by_class_; // (slots, frames)
  Real* by_frame_; // (frames, slots)
};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
