// Which scores can be decoded.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "decoder/scores.h"

namespace mlx_ctc {

// False if a score is NaN or +inf.
template <typename Real>
bool all_below_infinity(const Frames<Real>& frames);

// One of the scores of a batch.
struct Position {
  int64_t sequence;
  int64_t frame;
  int64_t label;
  double value;
};

/**
 * The first finite score that is above `most`, in the frames that the lengths
 * (N) leave.
 */
std::optional<Position>
find_above(double most, const Scores& scores, const std::vector<int>& lengths);

} // namespace mlx_ctc
