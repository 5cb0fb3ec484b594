// The posteriors of a class: the sums over its labels, for as many frames at
// once as a block has places. In a frame of its own each sum would wait for the
// one before it.
#pragma once

#include <cstdint>

#include "cpu/blocks.h"
#include "cpu/frames.h"
#include "cpu/workspace.h"

namespace {

// What frames have of Z: the labels' part, the blanks', and the sum of all. A
// label's posterior is 0 in frames that it cannot be at.
template <typename Real>
struct Posteriors {
  const Real* labels; // (frames, S), `pitch` apart
  int64_t pitch;
  const Real* blanks; // (frames)
  const Real* totals; // (frames)
};

template <typename Real>
class ClassSums {
 public:
  static constexpr int frames = block_size<Real>;

  template <typename In>
  ClassSums(const Frames<In>& of, LatticeWorkspace& workspace)
      : labels_(of.labels),
        S_(of.S),
        C_(of.C),
        blank_(of.blank),
        is_dense_(of.is_dense) {
    int64_t most = round_up(is_dense_ ? C_ : S_ + 1);
    slots_ = workspace.take<int32_t>(S_ + 1);
    classes_ = workspace.take<int32_t>(S_ + 1);
    slot_of_class_ = workspace.take<int32_t>(C_);
    by_class_ = workspace.take<Block<Real>>(most);
    by_frame_ = workspace.take<Real>(frames * most);
  }

  // An upper bound of the workspace.
  static size_t bytes(int64_t C, int64_t S) {
    size_t most = round_up(smaller(C, 4 * (S + 1)));
    return (2 * (S + 1) + C) * sizeof(int32_t) +
        2 * most * frames * sizeof(Real) + 5 * 64;
  }

  // Gives each class that occurs a slot, or every class.
  void prepare() {
    if (is_dense_) {
      count_ = C_;
      std::copy(labels_, labels_ + S_, slots_);
      slots_[S_] = blank_;
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
  // groups, times the frames' `scale`.
  void
  sum(Posteriors<Real> gamma, int64_t begin, int64_t end, Block<Real> scale) {
    Block<Real> x[frames];
    std::fill(by_class_, by_class_ + count_, Block<Real>{});
    by_class_[slots_[S_]] = load_block(gamma.blanks);
    for (int64_t i = begin; i < end; i += frames) {
      for (int j = 0; j < frames; ++j) {
        x[j] = load_block(gamma.labels + j * gamma.pitch + i);
      }
      transpose(x);
      int64_t known = smaller<int64_t>(S_ - i, frames);
      for (int64_t j = 0; j < known; ++j) {
        by_class_[slots_[i + j]] += x[j];
      }
    }
    for (int64_t k = 0; k < count_; k += frames) {
      for (int j = 0; j < frames; ++j) {
        x[j] = by_class_[k + j] * scale;
      }
      transpose(x);
      for (int j = 0; j < frames; ++j) {
        store_block(by_frame_ + j * round_up(count_) + k, x[j], frames);
      }
    }
  }

  // Frame j's sums: of all classes when dense, followed by numbers without
  // meaning up to a whole group; of classes() else.
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
  const int32_t* const labels_;
  const int64_t S_;
  const int64_t C_;
  const int32_t blank_;
  const bool is_dense_;
  int64_t count_ = 0; // of slots
  int32_t* slots_; // (S + 1) of the labels, and of the blank
  int32_t* classes_; // (S + 1) of the slots
  int32_t* slot_of_class_; // (C)
  Block<Real>* by_class_; // (slots, frames)
  Real* by_frame_; // (frames, slots)
};

} // namespace
