// Sums gamma over the states of a class, for as many frames at once as a block
// has elements: within one frame, each addition to a class would wait for the
// one before.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lattice/frames.h"
#include "lattice/target.h"
#include "lattice/workspace.h"
#include "simd/blocks.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

// gamma of several frames. The labels' is 0 in frames that they cannot be at.
// `totals`, the sum over all states, is 1 but for rounding.
template <typename Real>
struct Posteriors {
  const Real* labels; // (frames, S), `pitch` apart
  int64_t pitch;
  const Real* blanks; // (frames)
  const Real* totals; // (frames)
  // If the probabilities of all classes are in memory, not null: the softmax is
  // unnormalised * inverse_sum.
  const Block<Real>* unnormalised; // (C, frames)
  const Real* inverse_sum; // (frames)
};

template <typename Real>
class ClassSums {
 public:
  static constexpr int frames = block_size<Real>;

  ClassSums(const Frames<Real>& sequence_frames, Workspace& workspace)
      : S_(sequence_frames.S),
        C_(sequence_frames.C),
        is_dense_(sequence_frames.is_dense),
        classes_(sequence_frames.sequence, S_, workspace) {
    int64_t most = round_up(is_dense_ ? C_ : S_ + 1);
    by_class_ = workspace.take<Block<Real>>(most);
    by_frame_ = workspace.take<Real>(frames * most);
  }

  void prepare() {
    if (is_dense_) {
      classes_.list_all();
    } else {
      classes_.list();
    }
  }

  // Sums gamma of `frames` frames over the labels [begin, end), whole groups,
  // and the blanks.
  void sum(Posteriors<Real> gamma, int64_t begin, int64_t end) {
    std::fill(by_class_, by_class_ + round_up(classes_.count), Block<Real>{});
    by_class_[classes_.index_of_blank] = load_block(gamma.blanks);
    const int32_t* index = classes_.index_of_label;
    for (int64_t i = begin; i < end; i += frames) {
      Block<Real> x[frames];
      for (int j = 0; j < frames; ++j) {
        x[j] = load_block(gamma.labels + j * gamma.pitch + i);
      }
      transpose(x);
      int64_t count = smaller<int64_t>(S_ - i, frames);
      for (int64_t j = 0; j < count; ++j) {
        by_class_[index[i + j]] += x[j];
      }
    }
  }

  // frame(j) becomes value(k) - sums / totals for the classes that are listed,
  // of which k is the place. Finds likely(j). `totals`: gamma of all classes
  // together.
  template <typename Value>
  void subtract_from(Value value, Block<Real> totals) {
    Block<Real> by_sums = 1 / totals;
    Block<Real> most = totals * Real(0.75);
    Block<Real> others[2] = {}; // so that not every addition waits for another
    Block<Int<Real>> likely = filled<Int<Real>>(-1);
    for (int64_t k = 0; k < classes_.count; k += frames) {
      Block<Real> x[frames];
      for (int j = 0; j < frames; ++j) {
        Block<Real> sum = by_class_[k + j];
        x[j] = value(k + j) - sum * by_sums;
        others[j % 2] += sum > most ? Block<Real>{} : sum;
        likely = sum > most ? filled<Int<Real>>(k + j) : likely;
      }
      store_by_frame(x, k);
    }
    store_block(gamma_of_others_, (others[0] + others[1]) / totals, frames);
    store_block(likely_place_, likely, frames);
  }

  // The class of a frame that has most of gamma, three quarters or more; -1 if
  // there is none. And gamma of the others together.
  struct Likely {
    int32_t c;
    Real others;
  };

  Likely likely(int j) const {
    Int<Real> k = likely_place_[j];
    return {k < 0 ? -1 : classes_.classes[k], gamma_of_others_[j]};
  }

  // (classes_.count)
  Real* frame(int j) const {
    return by_frame_ + j * round_up(classes_.count);
  }

  // row[c] += what frame(j) has for class c, for the classes that are listed.
  void add(int j, Real* row) const {
    const Real* values = frame(j);
    const int32_t* classes = classes_.classes;
    UNROLLED
    for (int64_t k = 0; k < classes_.count; ++k) {
      row[classes[k]] += values[k];
    }
  }

 private:
  // Stores x, a block for each class from index k on, as rows of frames.
  void store_by_frame(Block<Real>* x, int64_t k) {
    transpose(x);
    for (int j = 0; j < frames; ++j) {
      store_block(by_frame_ + j * round_up(classes_.count) + k, x[j], frames);
    }
  }

  const int64_t S_;
  const int64_t C_;
  const bool is_dense_;
  TargetClasses classes_; // those that are summed
  Block<Real>* by_class_; // (classes_.count, frames)
  Real* by_frame_; // (frames, classes_.count)
  Real gamma_of_others_[frames]; // see likely()
  Int<Real> likely_place_[frames];
};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
