// The loss of confident sequences with more digits than the scan has.
//
// Where z is near 1 the loss is what z lacks of it, perhaps 1e-8 per frame, and
// the scan rounds by 1e-7 in every frame. So if the loss is small for the
// number of frames, z is computed again from the scan's checkpoints:
//
//   z = alpha(0) M(0) beta_p(1)  *  alpha(1) M(1) beta_p(2)  *  ...
//       -----------------------     -----------------------
//                  1                   alpha(1) beta_p(1)
//
// alpha(b) and beta_p(b) are what the scan has stored at the b-th boundary
// between segments, and M(b) is the recursion over segment b, with mantissas of
// two floats (wide.h). Each stored vector is in one numerator and in one
// denominator, so that its scale cancels. The product is z if the alphas are
// exact, for then each numerator has the next denominator as a factor, and also
// if the beta_ps are. So its error is that of alpha times that of beta_p, about
// 1e-6 * 1e-6. With logits, it is divided by the product of the normalisers.

#include "frame_sums.h"
#include "growth.h"
#include "threads.h"

// The scan's loss is within 1e-6 of its value if that is greater, in nats per
// frame: its float operations have errors of 5e-7 per frame in sum.
constant constexpr float confident_loss = 0.5f;

METAL_FUNC bool is_confident(Extended z, float scan_loss, int T_n) {
  return !is_invalid(z) && !is_zero(z) &&
      scan_loss <= confident_loss * float(T_n);
}

// The part of z that one of several simdgroups computes. They take the segments
// in turn, and then, with logits, the normalisers of a few frames.
template <bool LOGITS, bool MANY_CLASSES, int SEGMENT, typename Sequence>
METAL_FUNC Wide factor_of_simdgroup(
    thread const Sequence& sequence,
    int C,
    int S,
    Extended z,
    Device<const uint64_t> checkpoints, // of the sequence
    int simdgroup,
    int simdgroups,
    int lane) {
  const int T_n = sequence.T_n;
  const int segments = (T_n + SEGMENT - 1) / SEGMENT;
  constexpr int frames = MANY_CLASSES ? 4 : SEGMENT; // of a task
  const int tasks = segments + (LOGITS ? (T_n + frames - 1) / frames : 0);
  Wide growth = wide(extended_one());
  Wide sums = growth;
  for (int task = simdgroup; task < tasks; task += simdgroups) {
    if (task < segments) {
      const Wide more = growth_of_segment<LOGITS>(
          sequence,
          z,
          boundary_before(task, SEGMENT, sequence, checkpoints, S),
          boundary_before(task + 1, SEGMENT, sequence, checkpoints, S),
          lane);
      growth = normalise(multiply(growth, more));
    } else {
      const int begin = (task - segments) * frames;
      const int end = metal::min(begin + frames, T_n);
      const Wide more =
          product_of_frame_sums<MANY_CLASSES>(sequence, C, begin, end, lane);
      sums = normalise(multiply(sums, more));
    }
  }
  if (LOGITS) {
    growth = normalise(quotient(growth, sums));
  }
  return growth;
}

// The product of the factors that a launch before has stored. The threads of a
// threadgroup take them in turn; this is the product of a simdgroup's.
template <typename Factors>
METAL_FUNC Wide product_of_factors(
    Factors factors, // (count, 2) of the sequence
    int count,
    Threads self) {
  Wide product = wide(extended_one());
  for (int i = self.index; i < count; i += self.count) {
    const Wide factor = wide_from_bits(factors[2 * i], factors[2 * i + 1]);
    product = normalise(multiply(product, factor));
  }
  return product_of_lanes(product);
}

// The loss from the products of all simdgroups, whose product is z.
template <bool LOGITS>
METAL_FUNC float loss_of_products(Shared<Wide> products, int count) {
  Wide z = products[0];
#pragma unroll 1
  for (int i = 1; i < count; ++i) {
    const Wide factor = products[i];
    z = normalise(multiply(z, factor));
  }
  // Rounding can make z greater than 1 by 1e-14 per frame. It is really greater
  // than 1 with log-probabilities that do not sum to 1, or a blank as a label.
  const float loss = minus_log(z);
  const bool is_rounding = LOGITS && loss < 0.0f && loss > -1e-9f;
  return loss == 0.0f || is_rounding ? 0.0f : loss;
}
