// The class that has most of a frame's gamma. If softmax is near 1 as well,
// their difference is less than their rounding. It is also the difference of
// what the other classes have of gamma and of softmax:
//
//   softmax - gamma = (1 - gamma) - (1 - softmax)
//
// So the likely label's gamma is left out of the sum over labels, and the rest
// of softmax is summed without its greatest term (softmax_sum.h).

#include "pointers.h"

// A state with more than this, before gamma is divided by the frame's sum, is
// likely; no frame has two.
constant constexpr float likely_gamma = 0.75f;

struct LikelyLabel {
  float gamma; // 0 if no label is likely
  int y; // its class; -1 if none is
};

// One frame's likely label, which one of the simdgroups may have found.
METAL_FUNC LikelyLabel likely_of_simdgroups(
    Shared<LikelyLabel> found, // (simdgroups, frames)
    int frames,
    int f,
    int simdgroups) {
  LikelyLabel likely = {0.0f, -1};
  for (int k = 0; k < simdgroups; ++k) {
    const LikelyLabel of_simdgroup = found[k * frames + f];
    likely.gamma += of_simdgroup.gamma;
    likely.y = metal::max(likely.y, of_simdgroup.y);
  }
  return likely;
}
