// What the lattice of one sequence says of a labelling that a search found: its
// probability, summed over all paths, and when each label is said.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "decoder/scorers.h"
#include "decoder/scores.h"
#include "lattice/sequence.h"

namespace mlx_ctc {

// When each label is said, on the labelling's most probable path. Empty if it
// has none.
struct Times {
  std::vector<int> frames; // the first of each label
  std::vector<double> probabilities; // the mean of each label's frames
};

// The exact probabilities of labellings of one sequence, in double, for float
// frames too, and the times of their labels.
template <typename Real>
class Rescorer {
 public:
  // The frames have no NaN and no +inf.
  Rescorer(const Frames<Real>& frames, int blank)
      : frames_(frames), column_(frames.C, -1) {
    column_of(blank);
  }

  // log p(labels): minus the loss.
  double log_probability(const Labels& labels);

  Times times(const Labels& labels);

 private:
  // The labels as columns of table_. The blank is column 0.
  Labels columns_of(const Labels& labels);
  int column_of(int c);

  cpu::Sequence sequence(const Labels& columns) const;

  // Memory that begins on a cache line and is kept for the next call.
  std::span<std::byte> memory(size_t bytes);

  const Frames<Real>& frames_;
  // The classes of all labellings so far, copied once: of thousands of classes,
  // each score lies in a cache line of its own.
  std::vector<double> table_; // (columns_, T)
  int columns_ = 0;
  std::vector<int> column_; // (C) of each class, or -1
  std::unique_ptr<std::byte[]> memory_;
  size_t bytes_ = 0;
  std::vector<double> saved_; // checkpoints, which nobody reads
};

} // namespace mlx_ctc
