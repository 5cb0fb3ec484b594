#include "decoder/validity.h"

#include <algorithm>
#include <limits>

namespace mlx_ctc {

// One comparison finds both NaN and +inf.
template <typename Real>
bool all_below_infinity(const Frames<Real>& frames) {
  int bad = 0;
  for (int64_t t = 0; t < frames.T && !bad; ++t) {
    const Real* x = frames[t];
    for (int64_t c = 0; c < frames.C; ++c) {
      bad |= !(x[c] < std::numeric_limits<Real>::infinity());
    }
  }
  return !bad;
}

template bool all_below_infinity(const Frames<float>&);
template bool all_below_infinity(const Frames<double>&);

namespace {

template <typename Real>
std::optional<Position>
find_above(Real most, const Frames<Real>& frames, int64_t n) {
  auto is_above = [most](Real x) {
    return x > most && x < std::numeric_limits<Real>::infinity();
  };
  for (int64_t t = 0; t < frames.T; ++t) {
    const Real* x = frames[t];
    int any = 0;
    for (int64_t c = 0; c < frames.C; ++c) {
      any |= x[c] > most;
    }
    const Real* found = any ? std::find_if(x, x + frames.C, is_above) : nullptr;
    if (any && found != x + frames.C) {
      return Position{n, t, found - x, *found};
    }
  }
  return std::nullopt;
}

} // namespace

std::optional<Position>
find_above(double most, const Scores& scores, const std::vector<int>& lengths) {
  std::optional<Position> position;
  for (size_t n = 0; n < lengths.size() && !position; ++n) {
    position = scores.is_double
        ? find_above(most, frames_of<double>(scores, n, lengths[n]), n)
        : find_above(float(most), frames_of<float>(scores, n, lengths[n]), n);
  }
  return position;
}

} // namespace mlx_ctc
