// What is added to the score of a labelling besides its log-probability.
#pragma once

#include <functional>
#include <vector>

namespace mlx_ctc {

using Labels = std::vector<int>;

// What extending a prefix by a label adds; by label -1, ending it.
using Scorer = std::function<double(const Labels& prefix, int label)>;

// The same for all labels (C); the blank's entry is for ending the prefix.
using PrefixScorer = std::function<std::vector<double>(const Labels& prefix)>;

// At most one of them.
struct Scorers {
  Scorer scorer;
  PrefixScorer prefix_scorer;

  explicit operator bool() const {
    return scorer || prefix_scorer;
  }
};

} // namespace mlx_ctc
