// The most probable class of a frame.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "decoder/scores.h"

namespace mlx_ctc {

// The greatest of x (C), which has no NaN.
template <typename Real>
Real greatest(const Real* x, int64_t C) {
  constexpr int lanes = 16; // independent ones, which compilers vectorise
  Real of_lane[lanes];
  std::fill_n(of_lane, lanes, -std::numeric_limits<Real>::infinity());
  int64_t c = 0;
  for (; c + lanes <= C; c += lanes) {
    for (int j = 0; j < lanes; ++j) {
      of_lane[j] = x[c + j] > of_lane[j] ? x[c + j] : of_lane[j];
    }
  }
  for (; c < C; ++c) {
    of_lane[0] = std::max(of_lane[0], x[c]);
  }
  return *std::max_element(of_lane, of_lane + lanes);
}

// The first class that has it.
template <typename Real>
int best_class(const Real* x, int64_t C) {
  return std::find(x, x + C, greatest(x, C)) - x;
}

// The labelling of the best path: equal classes side by side are one label, and
// blanks none.
template <typename Real>
std::vector<int> greedy_labels(const Frames<Real>& frames, int blank) {
  std::vector<int> labels;
  int before = blank;
  for (int t = 0; t < frames.T; ++t) {
    int best = best_class(frames[t], frames.C);
    if (best != blank && best != before) {
      labels.push_back(best);
    }
    before = best;
  }
  return labels;
}

} // namespace mlx_ctc
