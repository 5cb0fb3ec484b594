// gamma in one window of 32 pairs over one segment of frames, computed by one
// simdgroup: alpha forward from the segment's start, then beta_p backward from
// its end, which multiplies each frame's alpha as it passes.
//
// In between, alpha is stored where gamma will be: the blank's in registers,
// the label's in threadgroup memory.

#include "segment.h"

// Where a lane stores gamma of its label, and for which frames of the segment.
struct LabelGammas {
  int begin;
  int end;
  Shared<float> first; // of frame `begin`
  int stride; // to the next frame

  METAL_FUNC bool contains(int f) const {
    return f >= begin && f < end;
  }
  METAL_FUNC Shared<float> at(int f) const {
    return first + (f - begin) * stride;
  }
};

// The lane that has the window's last label.
METAL_FUNC int edge_lane_of(int S_n, Place place, int lane) {
  return metal::min(31, S_n - 1 - place.label + lane);
}

// 2^d as a product of two floats, since one may not hold it. Multiplying by one
// after the other keeps an exact float in range.
struct Factors {
  float first;
  float second;
};

constant constexpr int greatest_factor = 32; // d for which that holds

METAL_FUNC Factors factors_of(int d) {
  const int e = metal::min(d, greatest_factor) >> 1;
  return Factors{power_of_two(e), power_of_two(d - e)};
}

// In floats ------------------------------------------------------------------

// Stores the probabilities of the lane's label. Returns whether they are in
// range.
template <int SEGMENT, typename Scores>
METAL_FUNC bool store_p_labels(GammaTask<SEGMENT, Scores> task, Place place) {
  const SegmentScores<Scores> scores = task.scores;
  const Shared<float> p_labels = task.memory.p_labels;
  float label_scores[SEGMENT];
  load_scores(
      label_scores,
      scores.of_class(place.y),
      scores.frame_stride,
      task.segment.frames);
  uint greatest = 0;
#pragma unroll
  for (int f = 0; f < SEGMENT; ++f) {
    p_labels[f * 32] =
        float_probability(label_scores[f], scores.scale, greatest);
  }
  for (int f = task.segment.frames.end; f < SEGMENT; ++f) {
    p_labels[f * 32] = p_label_after_end;
  }
  return is_in_range(greatest);
}

// Stores alpha of each frame in `blank_gammas` and `gammas`, and the levels of
// each span in `levels`.
template <int SEGMENT>
METAL_FUNC void alpha_in_floats(
    thread float (&blank_gammas)[SEGMENT],
    LabelGammas gammas,
    thread LevelledPair (&levels)[SEGMENT / span_frames],
    thread Range& range,
    Place place,
    WindowEnds ends,
    GammaMemory memory,
    int lane) {
  const Levelled label_before = on_levels_of_spans(ends.label_before);
  LevelledPair alpha = or_one(ends.alpha, place.has_states);
#pragma unroll
  for (int begin = 0; begin < SEGMENT; begin += span_frames) {
    const int level = metal::simd_broadcast(label_before.e, begin);
    alpha = with_levels_of_alpha(on_new_levels(alpha), level, lane);
    const Predecessors factors = predecessors_of(alpha, level, place, lane);
    FloatPair floats = FloatPair{alpha.blank.m, alpha.label.m};
#pragma unroll
    for (int k = 0; k < span_frames; ++k) {
      const int f = begin + k;
      const float from_window = metal::simd_broadcast(label_before.m, f);
      floats = alpha_step(
          floats,
          from_window,
          factors,
          memory.p_blanks[f],
          memory.p_labels[f * 32],
          lane);
      extend(range, floats, k);
      blank_gammas[f] = floats.blank;
      if (gammas.contains(f)) {
        *gammas.at(f) = floats.label;
      }
    }
    alpha = with_floats(alpha, floats);
    levels[begin / span_frames] = alpha;
  }
}

// What the floats of a span's alpha * beta are multiplied by: 2 to the level of
// alpha plus that of beta_p, divided by z.
struct GammaFactors {
  Factors blank;
  Factors label;
  int greatest; // exponent
};

METAL_FUNC GammaFactors gamma_factors_of(
    LevelledPair alpha,
    LevelledPair beta_p,
    Extended z,
    bool has_states) {
  const int blank =
      has_states ? alpha.blank.e + beta_p.blank.e - z.e : zero_exponent;
  const int label =
      has_states ? alpha.label.e + beta_p.label.e - z.e : zero_exponent;
  GammaFactors factors = GammaFactors{
      factors_of(blank), factors_of(label), metal::max(blank, label)};
  const float inverse_z = 1.0f / z.m;
  factors.blank.second *= inverse_z;
  factors.label.second *= inverse_z;
  return factors;
}

// Multiplies alpha by beta / z. Returns whether the factors were in range.
template <int SEGMENT, typename Scores>
METAL_FUNC bool multiply_by_beta_in_floats(
    thread float (&blank_gammas)[SEGMENT],
    LabelGammas gammas,
    thread const LevelledPair (&alpha_levels)[SEGMENT / span_frames],
    thread Range& range,
    GammaTask<SEGMENT, Scores> task,
    Place place,
    WindowEnds ends,
    int lane) {
  const Levelled next_blank = on_levels_of_spans(ends.next.blank);
  const Levelled next_label = on_levels_of_spans(ends.next.label);
  const int edge_lane = edge_lane_of(task.segment.S_n, place, lane);
  LevelledPair beta_p = or_one(ends.beta_p, place.has_states);
  int greatest = 0; // exponent of a factor
#pragma unroll
  for (int begin = SEGMENT - span_frames; begin >= 0; begin -= span_frames) {
    const int blank_level = metal::simd_broadcast(next_blank.e, begin);
    const int label_level = metal::simd_broadcast(next_label.e, begin);
    beta_p = with_levels_of_beta_p(
        on_new_levels(beta_p),
        metal::max(blank_level, label_level),
        lane,
        edge_lane);
    const Successors successors =
        successors_of(beta_p, blank_level, label_level, place, lane, edge_lane);
    const GammaFactors factors = gamma_factors_of(
        alpha_levels[begin / span_frames], beta_p, task.z, place.has_states);
    greatest = metal::max(greatest, factors.greatest);
    FloatPair floats = FloatPair{beta_p.blank.m, beta_p.label.m};
#pragma unroll
    for (int k = 0; k < span_frames; ++k) {
      const int f = begin + span_frames - 1 - k;
      const FloatPair entering = FloatPair{
          metal::simd_broadcast(next_blank.m, f),
          metal::simd_broadcast(next_label.m, f)};
      const BetaStep<FloatPair> step = beta_step(
          floats,
          entering,
          successors,
          task.memory.p_blanks[f],
          task.memory.p_labels[f * 32],
          lane,
          edge_lane);
      const FloatPair beta = step.beta;
      blank_gammas[f] *= factors.blank.first;
      blank_gammas[f] *= beta.blank * factors.blank.second;
      if (gammas.contains(f)) {
        const Shared<float> gamma = gammas.at(f);
        *gamma =
            *gamma * factors.label.first * (beta.label * factors.label.second);
      }
      floats = step.beta_p;
      extend(range, floats, k);
    }
    beta_p = with_floats(beta_p, floats);
  }
  return greatest <= greatest_factor;
}

// Returns whether all floats and factors were in range.
template <int SEGMENT, typename Scores>
METAL_FUNC bool gammas_in_floats(
    thread float (&blank_gammas)[SEGMENT],
    LabelGammas gammas,
    GammaTask<SEGMENT, Scores> task,
    Place place,
    WindowEnds ends,
    int lane) {
  const bool p_in_range = store_p_labels(task, place);
  Range range = empty_range();
  LevelledPair levels[SEGMENT / span_frames];
  alpha_in_floats(
      blank_gammas, gammas, levels, range, place, ends, task.memory, lane);
  const bool factors_in_range = multiply_by_beta_in_floats(
      blank_gammas, gammas, levels, range, task, place, ends, lane);
  return metal::simd_all(p_in_range && is_exact(range) && factors_in_range);
}

// In extended range ----------------------------------------------------------

// A lane's alpha before a frame, in the words of four frames of `p_labels`, of
// which this recursion has no use. An exponent becomes the bits of a normal
// float.
constant constexpr int exponent_bias = 1 << 29;

METAL_FUNC void store_alpha(Shared<float> to, Pair alpha) {
  to[0] = alpha.blank.m;
  to[32] = as_type<float>(alpha.blank.e + exponent_bias);
  to[64] = alpha.label.m;
  to[96] = as_type<float>(alpha.label.e + exponent_bias);
}

METAL_FUNC Pair load_alpha(Shared<float> from) {
  const float blank_e = from[32];
  const float label_e = from[96];
  return Pair{
      Extended{from[0], as_type<int>(blank_e) - exponent_bias},
      Extended{from[64], as_type<int>(label_e) - exponent_bias}};
}

// The emission probabilities of frame f.
template <typename Scores>
METAL_FUNC Pair emissions_at(SegmentScores<Scores> scores, Place place, int f) {
  const int64_t at = f * scores.frame_stride;
  const float blank = float(scores.of_class(scores.blank)[at]);
  Pair p = Pair{probability(blank, scores.scale), extended_zero()};
  if (place.has_states) {
    const float label = float(scores.of_class(place.y)[at]);
    p.label = probability(label, scores.scale);
  }
  return p;
}

// Advances alpha over frames first .. last and returns the emissions of the
// last. Stores alpha before every fourth frame, if it `stores`.
template <int SEGMENT, typename Scores>
METAL_FUNC Pair advance_alpha(
    thread Pair& alpha,
    GammaTask<SEGMENT, Scores> task,
    Place place,
    Extended label_before, // of lane f: what enters with frame f
    int first,
    int last,
    bool stores,
    int lane) {
  Pair p = zero_pair();
#pragma unroll 1
  for (int f = first; f <= last; ++f) {
    if (stores && f % span_frames == 0) {
      store_alpha(task.memory.p_labels + f * 32, alpha);
    }
    p = emissions_at(task.scores, place, f);
    alpha = alpha_step(
        alpha,
        value_of_lane(label_before, f),
        place.label_before_to_label - allowed,
        p.blank,
        p.label,
        lane);
  }
  return p;
}

// Without limits, only in frames of the sequence. It is rarely needed: rather
// than store alpha of all frames, it stores that before every fourth, and
// computes the others again from there. Both passes are one loop, because
// inlined twice the recursion would make the kernel longer for all.
template <int SEGMENT, typename Scores>
METAL_FUNC void gammas_in_extended_range(
    thread float (&blank_gammas)[SEGMENT],
    LabelGammas gammas,
    GammaTask<SEGMENT, Scores> task,
    Place place,
    WindowEnds ends,
    int lane) {
  const int edge_lane = edge_lane_of(task.segment.S_n, place, lane);
  const Extended label_before = to_extended(ends.label_before);
  const Pair next_window = to_extended(ends.next);
  const int end = task.segment.frames.end;
  Pair beta_p = to_extended(ends.beta_p);
  // At first over all frames, to store alpha; then up to each from the last.
#pragma unroll 1
  for (int f = end; f >= 0; --f) {
    const bool stores = f == end;
    const int first = stores ? 0 : f - f % span_frames;
    const int last = stores ? end - 1 : f;
    Pair alpha = to_extended(ends.alpha);
    if (!stores) {
      alpha = load_alpha(task.memory.p_labels + first * 32);
    }
    const Pair p = advance_alpha(
        alpha, task, place, label_before, first, last, stores, lane);
    if (stores) {
      continue;
    }
    const BetaStep<Pair> step = beta_step(
        beta_p,
        Pair{
            value_of_lane(next_window.blank, f),
            value_of_lane(next_window.label, f)},
        place.label_to_next_label - allowed,
        p.blank,
        p.label,
        lane,
        edge_lane);
    const float blank_gamma = gamma(alpha.blank, step.beta.blank, task.z);
#pragma unroll
    for (int k = 0; k < SEGMENT; ++k) {
      blank_gammas[k] = k == f ? blank_gamma : blank_gammas[k];
    }
    if (gammas.contains(f)) {
      *gammas.at(f) = gamma(alpha.label, step.beta.label, task.z);
    }
    beta_p = step.beta_p;
  }
}

// Sums over lanes -------------------------------------------------------------

// The first COUNT numbers of each lane are added to those of another lane,
// which keeps one half of the sums while this lane keeps the other. Both
// numbers are loaded before one is chosen: LLVM would choose an address, and
// keep x in memory.
template <int COUNT, int SIZE>
METAL_FUNC void halve(thread float (&x)[SIZE], int step, int lane) {
  const bool upper = (lane & step) != 0;
#pragma unroll
  for (int k = 0; k < COUNT / 2; ++k) {
    const float low = x[k];
    const float high = x[k + COUNT / 2];
    const float given = upper ? low : high;
    x[k] = (upper ? high : low) + metal::simd_shuffle_xor(given, step);
  }
}

// Sums over the lanes, in a fixed order, so that every run gives the same bits:
// lanes 32 / COUNT * f and after get the sum of x[f]. The calls of halve() are
// written out, because a loop would index x at run time and move it to memory.
template <int COUNT>
METAL_FUNC float sums_of_lanes(thread float (&x)[COUNT], int lane) {
  static_assert(COUNT == 8 || COUNT == 16, "the frames of a segment");
  int step = 16;
  if (COUNT == 16) {
    halve<COUNT>(x, step, lane);
    step /= 2;
  }
  halve<8>(x, step, lane);
  halve<4>(x, step / 2, lane);
  halve<2>(x, step / 4, lane);
  for (step /= 8; step > 0; step /= 2) {
    x[0] += metal::simd_shuffle_xor(x[0], step);
  }
  return x[0];
}

// Computes one window: stores gamma of the labels, and adds gamma of all states
// to the simdgroup's sums.
template <int SEGMENT, typename Scores>
METAL_FUNC void add_gammas_of_window(
    LabelGammas gammas,
    GammaTask<SEGMENT, Scores> task,
    Place place,
    int window,
    int lane) {
  const WindowEnds ends = ends_of(task.segment, place, window, lane);
  float blanks[SEGMENT];
  if (!gammas_in_floats(blanks, gammas, task, place, ends, lane)) {
    gammas_in_extended_range(blanks, gammas, task, place, ends, lane);
  }
  float label_gammas[SEGMENT];
#pragma unroll
  for (int f = 0; f < SEGMENT; ++f) {
    label_gammas[f] = gammas.contains(f) ? *gammas.at(f) : 0.0f;
  }
  const float sum_of_labels = sums_of_lanes(label_gammas, lane);
  const float sum_of_blanks = sums_of_lanes(blanks, lane);
  constexpr int lanes = 32 / SEGMENT; // that have the same sum
  if (lane % lanes == 0) {
    task.memory.blank_sums[lane / lanes] += sum_of_blanks;
    task.memory.label_sums[lane / lanes] += sum_of_labels;
  }
}

// Gamma of all states of a frame, which sums to 1 but for the rounding errors
// of alpha, beta_p and z. They grow with the number of frames, and dividing by
// the computed sum removes them.
struct GammaSums {
  float blanks;
  float labels;

  METAL_FUNC float all() const {
    return blanks + labels;
  }
};

// The sums over the simdgroups of frame f of the segment. Unrolled, so that all
// loads are issued at once.
template <int MAX_SIMDGROUPS, int SEGMENT>
METAL_FUNC GammaSums gamma_sums_of_frame(
    Shared<float> blank_sums, // (MAX_SIMDGROUPS, SEGMENT)
    Shared<float> label_sums, // (MAX_SIMDGROUPS, SEGMENT)
    int f,
    int simdgroups) {
  GammaSums sums = {0.0f, 0.0f};
#pragma unroll
  for (int k = 0; k < MAX_SIMDGROUPS; ++k) {
    sums.blanks += k < simdgroups ? blank_sums[k * SEGMENT + f] : 0.0f;
    sums.labels += k < simdgroups ? label_sums[k * SEGMENT + f] : 0.0f;
  }
  return sums;
}
