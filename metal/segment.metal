// gamma in one window of 32 pairs of states over one segment of frames, from
// what the scan has left: alpha before the segment, w behind it, and what
// enters the window from its neighbours. A simdgroup does it on its own.

// Which segment of which sequence.
struct Segment {
  int n;
  int T; // of the batch, as is S
  int S;
  int T_n;
  int S_n;
  int index;
  int begin; // its first frame
  int frames;
};

// A lane's pair of states: the blank before label i, and label i.
struct Place {
  int i;
  int y; // the label; BLANK behind the last
  Has has;
  int jump; // from the label before: 0, or zero_exponent to forbid it
  int jump_on; // to the label behind
};

template <typename Target>
METAL_FUNC Place
place_of(Target target, int64_t stride, int i, int S_n, int blank) {
  Place place = {
      i, blank, Has{i <= S_n, i < S_n}, zero_exponent, zero_exponent};
  if (place.has.label) {
    place.y = target[i * stride];
    if (i > 0 && target[(i - 1) * stride] != place.y) {
      place.jump = 0;
    }
    if (i + 1 < S_n && target[(i + 1) * stride] != place.y) {
      place.jump_on = 0;
    }
  }
  return place;
}

struct Ends {
  Pair alpha; // before the segment
  Pair w; // behind it
  Extended left; // lane f: alpha's label that enters with frame f
  Pair right; // and w's pair
};

template <typename Checkpoints, typename Edges>
METAL_FUNC Ends ends_of(
    Segment segment,
    Place place,
    Checkpoints checkpoints, // (N, 2, B, 2, S + 1)
    int64_t B,
    Edges edges, // (N, rows, V, T)
    int64_t rows,
    int window,
    int lane) {
  Ends ends = {no_states(), no_states(), extended_zero(), no_states()};
  const int64_t row = 2 * (segment.S + 1);
  const int64_t before =
      (segment.n * 2 * B + segment.index - 1) * row + place.i;
  const int64_t behind =
      ((segment.n * 2 + 1) * B + segment.index + 1) * row + place.i;
  if (segment.index > 0) {
    if (place.has.blank) {
      ends.alpha.blank = unpack(checkpoints[before]);
    }
    if (place.has.label) {
      ends.alpha.label = unpack(checkpoints[before + segment.S + 1]);
    }
  } else if (place.i == 0) {
    ends.alpha.blank = extended_one();
  }
  if (segment.begin + segment.frames < segment.T_n) {
    if (place.has.blank) {
      ends.w.blank = unpack(checkpoints[behind]);
    }
    if (place.has.label) {
      ends.w.label = unpack(checkpoints[behind + segment.S + 1]);
    }
  } else if (place.i == segment.S_n) {
    ends.w.blank = extended_one();
  }
  if (lane < segment.frames) {
    const int64_t T = segment.T;
    const int64_t V = metal::max(segment.S / 32, 1);
    const int64_t edge = segment.n * rows * V + window;
    const int t = segment.begin + lane;
    if (window > 0) {
      ends.left = as_number(unpack(edges[(edge - 1) * T + t]));
    }
    if ((window + 1) * 32 <= segment.S_n) {
      const int64_t at = (edge + V) * T + segment.T_n - 1 - t;
      ends.right.blank = as_number(unpack(edges[at]));
      ends.right.label = as_number(unpack(edges[at + V * T]));
    }
  }
  return ends;
}

// The scores of this lane's label and of the blank, from the segment's first
// frame on, and what their probabilities are measured in.
template <typename Scores>
struct Emissions {
  Scores label;
  Scores blank;
  int64_t stride; // from frame to frame
  Unit unit;
};

template <typename Scores>
METAL_FUNC Emissions<Scores>
emissions_of(Scores label, Scores blank, int64_t stride, Unit unit) {
  return Emissions<Scores>{label, blank, stride, unit};
}

template <int FRAMES>
struct Gammas {
  float blank[FRAMES];
  float label[FRAMES];
};

// gamma = alpha beta-hat / Z in floats. Tells whether they were in range.
template <int FRAMES, typename Scores, typename Blanks>
METAL_FUNC bool gammas_in_floats(
    thread Gammas<FRAMES>& gammas,
    Segment segment,
    Place place,
    Ends ends,
    Emissions<Scores> emissions,
    Blanks p_blank, // (FRAMES), 0 behind the last frame
    Extended z,
    int lane) {
  // All scores are asked for before the first is used.
  float p_label[FRAMES];
#pragma unroll
  for (int f = 0; f < FRAMES; ++f) {
    p_label[f] = 0.0f;
    if (f < segment.frames && place.has.label) {
      p_label[f] = float(emissions.label[f * emissions.stride]);
    }
  }
#pragma unroll
  for (int f = 0; f < FRAMES; ++f) {
    const float p = plain_probability(p_label[f], emissions.unit);
    p_label[f] = place.has.label && f < segment.frames ? p : 0.0f;
  }

  const int left_level = metal::simd_max(ends.left.e);
  const Levels alpha_levels =
      levels_of_alpha(ends.alpha, place.has, left_level, lane);
  const Arrivals to =
      arrivals(alpha_levels, place.has, left_level, place.jump, lane);
  const float left = entering_float(ends.left, left_level);

  Floats alpha = floats_of(ends.alpha);
  uint least = 0xffffffffu;
#pragma unroll
  for (int f = 0; f < FRAMES; ++f) {
    const float entering = metal::simd_broadcast(left, f);
    const float from_lane = metal::simd_shuffle_up(alpha.label, 1);
    const float label_before = lane == 0 ? entering : from_lane;
    alpha = emit(arrive(alpha, label_before, to), p_blank[f], p_label[f]);
    least = least_of(least, alpha);
    gammas.blank[f] = alpha.blank;
    gammas.label[f] = alpha.label;
  }

  const int right_level =
      metal::simd_max(metal::max(ends.right.blank.e, ends.right.label.e));
  const Levels w_levels = levels_of_w(ends.w, place.has, right_level, lane);
  const Departures onward =
      departures(w_levels, right_level, place.jump_on, lane);
  const float right_blank = entering_float(ends.right.blank, right_level);
  const float right_label = entering_float(ends.right.label, right_level);

  // 2^(levels - Z's) in two factors, for one float may not hold it.
  const int blank_level =
      alpha_levels.blank + w_levels.blank - 2 * start_exponent - z.e;
  const int label_level =
      alpha_levels.label + w_levels.label - 2 * start_exponent - z.e;
  const int blank_half = metal::clamp(blank_level, -250, 250) / 2;
  const int label_half = metal::clamp(label_level, -250, 250) / 2;
  const float blank_factor = level_ratio(blank_half, 0);
  const float label_factor = level_ratio(label_half, 0);
  const float inverse_z = 1.0f / z.m;
  const float blank_rest =
      level_ratio(metal::clamp(blank_level, -250, 250), blank_half) * inverse_z;
  const float label_rest =
      level_ratio(metal::clamp(label_level, -250, 250), label_half) * inverse_z;

  Floats w = floats_of(ends.w);
#pragma unroll
  for (int f = FRAMES - 1; f >= 0; --f) {
    const Floats entering = Floats{
        metal::simd_broadcast(right_blank, f),
        metal::simd_broadcast(right_label, f)};
    const Floats from_lane = Floats{
        metal::simd_shuffle_down(w.blank, 1),
        metal::simd_shuffle_down(w.label, 1)};
    const Floats behind = Floats{
        lane == 31 ? entering.blank : from_lane.blank,
        lane == 31 ? entering.label : from_lane.label};
    const Floats beta = leave(w, behind, onward); // beta-hat
    gammas.blank[f] *= blank_factor;
    gammas.blank[f] *= beta.blank * blank_rest;
    gammas.label[f] *= label_factor;
    gammas.label[f] *= beta.label * label_rest;
    // Behind the last frame all probabilities are 0, and w stays what it was.
    const Floats next = emit(beta, p_blank[f], p_label[f]);
    w.blank = f < segment.frames ? next.blank : w.blank;
    w.label = f < segment.frames ? next.label : w.label;
    least = least_of(least, w);
  }
  return metal::simd_all(
      stayed_in_range(alpha, least) && stayed_in_range(w, least) &&
      entering_fits(ends.left, left_level) &&
      entering_fits(ends.right.blank, right_level) &&
      entering_fits(ends.right.label, right_level));
}

// The same without limits. Rarely needed, so alpha is rebuilt for each frame
// from the segment's start, rather than kept.
template <int FRAMES, typename Scores>
METAL_FUNC void gammas_without_limits(
    thread Gammas<FRAMES>& gammas,
    Segment segment,
    Place place,
    Ends ends,
    Emissions<Scores> emissions,
    Extended z,
    int lane) {
  Pair w = ends.w;
#pragma unroll 1
  for (int last = segment.frames - 1; last >= 0; --last) {
    Pair alpha = ends.alpha;
    Extended p_blank = extended_zero();
    Extended p_label = extended_zero();
#pragma unroll 1
    for (int f = 0; f <= last; ++f) {
      const int64_t at = f * emissions.stride;
      p_blank = probability(float(emissions.blank[at]), emissions.unit);
      if (place.has.label) {
        p_label = probability(float(emissions.label[at]), emissions.unit);
      }
      const Extended label_before =
          choose(lane == 0, broadcast(ends.left, f), shuffle_up(alpha.label));
      alpha = emit(arrive(alpha, label_before, place.jump), p_blank, p_label);
      alpha = normalise(alpha);
    }
    const Pair behind = choose(
        lane == 31,
        Pair{
            broadcast(ends.right.blank, last),
            broadcast(ends.right.label, last)},
        Pair{shuffle_down(w.blank), shuffle_down(w.label)});
    const Pair beta = leave(w, behind, place.jump_on); // beta-hat
    const float blank = gamma(alpha.blank, beta.blank, z);
    const float label = gamma(alpha.label, beta.label, z);
#pragma unroll
    for (int f = 0; f < FRAMES; ++f) {
      gammas.blank[f] = f == last ? blank : gammas.blank[f];
      gammas.label[f] = f == last ? label : gammas.label[f];
    }
    w = normalise(emit(beta, p_blank, p_label));
  }
}

// gamma of a lane's pair in the segment's frames; 0 in those behind it.
template <int FRAMES, typename Scores, typename Blanks>
METAL_FUNC Gammas<FRAMES> gammas_of(
    Segment segment,
    Place place,
    Ends ends,
    Emissions<Scores> emissions,
    Blanks p_blank,
    Extended z,
    int lane) {
  Gammas<FRAMES> gammas;
#pragma unroll
  for (int f = 0; f < FRAMES; ++f) {
    gammas.blank[f] = 0.0f;
    gammas.label[f] = 0.0f;
  }
  const bool reached = !metal::simd_all(
      is_zero(ends.alpha.blank) && is_zero(ends.alpha.label) &&
      is_zero(ends.left));
  const bool reaches_end = !metal::simd_all(
      is_zero(ends.w.blank) && is_zero(ends.w.label) &&
      is_zero(ends.right.blank) && is_zero(ends.right.label));
  if (reached && reaches_end &&
      !gammas_in_floats(
          gammas, segment, place, ends, emissions, p_blank, z, lane)) {
    gammas_without_limits(gammas, segment, place, ends, emissions, z, lane);
  }
  return gammas;
}

// Sums over the lanes in a fixed order, so that every run gives the same bits:
// that of x[f] in the lanes from 32 / COUNT * f on.
template <int COUNT>
METAL_FUNC float sums_of_lanes(thread float (&x)[COUNT], int lane) {
  int step = 16;
#pragma unroll
  for (int pairs = COUNT / 2; pairs > 0; pairs /= 2) {
    const bool upper = (lane & step) != 0;
#pragma unroll
    for (int k = 0; k < pairs; ++k) {
      const float kept = upper ? x[k + pairs] : x[k];
      const float given = upper ? x[k] : x[k + pairs];
      x[k] = kept + metal::simd_shuffle_xor(given, step);
    }
    step /= 2;
  }
  for (; step > 0; step /= 2) {
    x[0] += metal::simd_shuffle_xor(x[0], step);
  }
  return x[0];
}
