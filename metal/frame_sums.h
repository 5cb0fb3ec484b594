// The sums of exponentials of frames of logits, for the loss of confident
// sequences (refinement.h): of exactly the floats by which the recursion
// multiplies, so that their rounding cancels in the loss.

#include "frames.h"
#include "sequence.h"
#include "wide.h"

METAL_FUNC TwoFloats plus_exp(TwoFloats sum, float score, float greatest) {
  const Extended p = exp_of_difference(score, greatest);
  const TwoFloats more = two_sum(sum.high, p.m * power_of_two(p.e));
  return TwoFloats{more.high, more.low + sum.low};
}

// Few classes: several frames at once, so that their loads and sums overlap ---

constant constexpr int frames_at_once = 4;

// Of two frames the one that the lane keeps, and half of its sum: lanes with
// the bit keep the second.
METAL_FUNC TwoFloats
sum_of_halves(TwoFloats first, TwoFloats second, int bit, int lane) {
  const bool keeps_second = (lane & bit) != 0;
  const TwoFloats given = choose(keeps_second, first, second);
  return add(choose(keeps_second, second, first), shuffle_xor(given, bit));
}

// The product of the sums of frames begin, begin + 1 .. before end, at most as
// many as are taken at once.
template <typename Sequence>
METAL_FUNC Wide product_of_few(
    thread const Sequence& sequence,
    int C,
    int begin,
    int end,
    int lane) {
  TwoFloats sums[frames_at_once];
  float greatest[frames_at_once];
#pragma unroll
  for (int i = 0; i < frames_at_once; ++i) {
    greatest[i] = sequence.greatest_logit(metal::min(begin + i, end - 1));
    sums[i] = TwoFloats{0.0f, 0.0f};
  }
  for (int c = lane; c < C; c += 32) {
#pragma unroll
    for (int i = 0; i < frames_at_once; ++i) {
      const float score = sequence.score(metal::min(begin + i, end - 1), c);
      sums[i] = plus_exp(sums[i], score, greatest[i]);
    }
  }
  // Lane i has the sum of frame i % 4.
  TwoFloats sum = sum_of_halves(
      sum_of_halves(sums[0], sums[1], 1, lane),
      sum_of_halves(sums[2], sums[3], 1, lane),
      2,
      lane);
#pragma unroll 1
  for (int step = frames_at_once; step < 32; step *= 2) {
    sum = add(sum, shuffle_xor(sum, step));
  }
  const bool has_frame = begin + lane % frames_at_once < end;
  Wide product = {choose(has_frame, sum, TwoFloats{1.0f, 0.0f}), 0};
  product = multiply(product, shuffle_xor(product, 1));
  return normalise(multiply(product, shuffle_xor(product, 2)));
}

// Many classes: only the frames that need it ----------------------------------

constant constexpr int classes_at_once = 8; // of a lane

template <typename Sequence>
METAL_FUNC TwoFloats
exp_sum_of_frame(thread const Sequence& sequence, int C, int t, int lane) {
  const float greatest = sequence.greatest_logit(t);
  TwoFloats sum = {0.0f, 0.0f};
  for (int first = lane; first < C; first += 32 * classes_at_once) {
    float scores[classes_at_once];
#pragma unroll
    for (int i = 0; i < classes_at_once; ++i) {
      const int c = first + 32 * i;
      scores[i] = -metal::numeric_limits<float>::infinity();
      if (c < C) {
        scores[i] = sequence.score(t, c);
      }
    }
#pragma unroll
    for (int i = 0; i < classes_at_once; ++i) {
      sum = plus_exp(sum, scores[i], greatest);
    }
  }
  return sum_of_lanes(two_sum_of_ordered(sum.high, sum.low));
}

// exp(score - greatest), of a class other than the greatest.
METAL_FUNC float exp_of_other(float score, float greatest) {
  return score < greatest ? softmax_exp(score - greatest) : 0.0f;
}

// Whether paths may have more than an eighth of what the frame has besides its
// greatest class. If not, seven eighths of the normaliser's rest are lost to
// all paths and so are part of the loss. Then the rest's error, at most 5e-7 of
// it, is less than 1e-6 of the loss. Labels of one class are counted
// repeatedly, which can only make this true.
template <typename Sequence>
METAL_FUNC bool
has_alternatives(thread const Sequence& sequence, int t, int lane) {
  const float greatest = sequence.greatest_logit(t);
  const float rest = sequence.softmax_rest(t);
  const Band band = band_of(t, t + 1, sequence.T_n, sequence.S_n);
  const int last = metal::min(band.last + 31, sequence.S_n - 1);
  float of_paths = 0.0f;
  for (int i = metal::max(band.first, 0) + lane; i <= last; i += 32) {
    const float score = sequence.score(t, sequence.class_of_label(i));
    of_paths += exp_of_other(score, greatest);
  }
  for (int step = 16; step > 0; step /= 2) {
    of_paths += metal::simd_shuffle_xor(of_paths, step);
  }
  of_paths += exp_of_other(sequence.score(t, sequence.blank), greatest);
  // Several classes may be the greatest if the rest is 1 or more.
  return rest > 0.5f || of_paths > 0.125f * rest;
}

template <typename Sequence>
METAL_FUNC TwoFloats
sum_of_many(thread const Sequence& sequence, int C, int t, int lane) {
  if (has_alternatives(sequence, t, lane)) {
    return exp_sum_of_frame(sequence, C, t, lane);
  }
  return two_sum(1.0f, sequence.softmax_rest(t));
}

// The product over the frames of either.
template <bool MANY_CLASSES, typename Sequence>
METAL_FUNC Wide product_of_frame_sums(
    thread const Sequence& sequence,
    int C,
    int begin,
    int end,
    int lane) {
  Wide product = wide(extended_one());
  for (int t = begin; t < end; t += MANY_CLASSES ? 1 : frames_at_once) {
    Wide more = {TwoFloats{1.0f, 0.0f}, 0};
    if (MANY_CLASSES) {
      more.m = sum_of_many(sequence, C, t, lane);
    } else {
      more = product_of_few(sequence, C, t, end, lane);
    }
    product = normalise(multiply(product, more));
  }
  return product;
}
