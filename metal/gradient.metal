// The gradient, cotangent * (softmax - gamma), of all frames at once.
//
// A threadgroup rebuilds alpha and w inside one segment from the scan's
// checkpoints, sums gamma over the places of each class in order, and writes
// its frames' rows.
//
// A simdgroup needs nothing from its neighbours, since the scan has left what
// passes between windows: it takes windows in turn, on its own. A target longer
// than PART labels is done in parts, and all but the first subtract their gamma
// from what is already written.
//
// in   log_probs       (T, N, C) any strides
//      targets         (N, S)
//      input_lengths   (N)
//      target_lengths  (N)
//      cotangent       (N)
//      normalisers, partition, checkpoints, edges, heads, nexts: see the scan
// out  gradient        (T, N, C)
//
// LOGITS, BLANK    the op's options
// ELEMENT          the gradient's type
// SEGMENT          frames between checkpoints
// FRAMES           frames that a threadgroup writes; divides SEGMENT
// PART             labels of a part, a multiple of 32
// CAPACITY         room for a part's gamma: PART, or less for a short target
// SIMDGROUPS       in a threadgroup

constexpr int THREADS = 32 * SIMDGROUPS;
constexpr int UNROLL = FRAMES < 4 ? FRAMES : 4;
const float infinity = metal::numeric_limits<float>::infinity();
const float nan = metal::numeric_limits<float>::quiet_NaN();

threadgroup float logits[SIMDGROUPS][SEGMENT][32]; // of a window's labels
threadgroup uint64_t alpha_blank[SIMDGROUPS][FRAMES][32];
threadgroup uint64_t alpha_label[SIMDGROUPS][FRAMES][32];
threadgroup uint4 common[SEGMENT]; // the frames' units and blanks
threadgroup float greatest[FRAMES];
threadgroup float inverse[FRAMES]; // 1 / sum of exp(logit - greatest)
threadgroup float gammas[FRAMES][CAPACITY]; // of labels, then of classes
threadgroup float blank_gammas[SIMDGROUPS][FRAMES];
threadgroup float frame_gammas[SIMDGROUPS]
                              [FRAMES]; // of all states, then 1 / it

const int T = log_probs_shape[0];
const int N = log_probs_shape[1];
const int C = log_probs_shape[2];
const int S = targets_shape[1];
const int t0 = int(threadgroup_position_in_grid.x) * FRAMES;
const int n =
    int(threadgroup_position_in_grid.y +
        threadgroup_position_in_grid.z * threadgroups_per_grid.y);
if (n >= N) {
  return;
}
const int thread_index = int(thread_position_in_threadgroup.x);
const int simdgroup = int(simdgroup_index_in_threadgroup);
const int lane = int(thread_index_in_simdgroup);

// Of the `here` frames to write, those from `count` on hold no path: they are
// 0, or NaN in a bad item.
const int here = metal::min(FRAMES, T - t0);
const float weight = cotangent[n * cotangent_strides[0]];
const Extended z = unpack(partition[n]);
const bool bad = metal::isnan(z.m);
const int T_n =
    bad && z.e == 1 ? T : input_lengths[n * input_lengths_strides[0]];
const int left = weight == 0.0f ? 0 : metal::clamp(T_n - t0, 0, here);
const int bad_count = bad ? left : 0;
const int count = bad || is_zero(z) ? 0 : left;
const int S_n = count > 0 ? target_lengths[n * target_lengths_strides[0]] : 0;

const int64_t item = n * log_probs_strides[1];
const int64_t frame_stride = log_probs_strides[0];
const int64_t class_stride = log_probs_strides[2];
const int64_t target = n * targets_strides[0];
const int64_t listed = int64_t(S / PART + 1) * C; // of heads

// The segment's frames, and where this threadgroup's begin among them.
const int segment = t0 / SEGMENT;
const int begin = segment * SEGMENT;
const int frames = metal::min(SEGMENT, T_n - begin);
const int own = t0 - begin;
if (count > 0 && thread_index < frames) {
  const int t = begin + thread_index;
  const int64_t at = (int64_t(n) * T + t) * 2;
  const float top = LOGITS ? float(normalisers[at]) : 0.0f;
  const Unit unit = unit_of(top);
  const Extended blank = probability(
      float(log_probs[item + BLANK * class_stride + t * frame_stride]), unit);
  common[thread_index] = uint4{
      as_type<uint>(unit.origin),
      uint(unit.bits),
      as_type<uint>(blank.m),
      uint(blank.e)};
  if (thread_index >= own && thread_index < own + count) {
    greatest[thread_index - own] = top;
    inverse[thread_index - own] = LOGITS ? float(normalisers[at + 1]) : 1.0f;
  }
}
if (lane < FRAMES) {
  blank_gammas[simdgroup][lane] = 0.0f;
  frame_gammas[simdgroup][lane] = 0.0f;
}
metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);

for (int part = 0; part * PART <= S_n; ++part) {
  const int part_begin = part * PART;
  const int part_end = metal::min(part_begin + PART, S_n);
  const int64_t heads_at = n * listed + int64_t(part) * C;

  for (int window = part_begin / 32 + simdgroup;
       count > 0 && window * 32 <= S_n && window * 32 < part_begin + PART;
       window += SIMDGROUPS) {
    const int i = window * 32 + lane;
    const bool has_blank = i <= S_n;
    const bool has_label = i < S_n;
    int y = BLANK;
    int jump = zero_exponent; // from the label before
    int jump_on = zero_exponent; // to the label behind
    if (has_label) {
      y = targets[target + i * targets_strides[1]];
      if (i > 0 && targets[target + (i - 1) * targets_strides[1]] != y) {
        jump = 0;
      }
      if (i + 1 < S_n && targets[target + (i + 1) * targets_strides[1]] != y) {
        jump_on = 0;
      }
    }

    // Everything from memory is asked for before any of it is used.
    float loaded[SEGMENT];
    const int64_t label_at = item + y * class_stride + begin * frame_stride;
#pragma unroll
    for (int f = 0; f < SEGMENT; ++f) {
      loaded[f] = -infinity;
      if (f < frames && has_label) {
        loaded[f] = float(log_probs[label_at + f * frame_stride]);
      }
    }
    // alpha from the frame before the segment, w from the frame behind it.
    const int64_t B = (T + SEGMENT - 1) / SEGMENT;
    const int64_t row = 2 * (S + 1);
    const int64_t before = (int64_t(n) * 2 * B + segment - 1) * row + i;
    const int64_t behind = ((int64_t(n) * 2 + 1) * B + segment + 1) * row + i;
    Pair alpha = no_states();
    Pair w = no_states();
    if (segment > 0) {
      if (has_blank) {
        alpha.blank = unpack(checkpoints[before]);
      }
      if (has_label) {
        alpha.label = unpack(checkpoints[before + S + 1]);
      }
    } else if (i == 0) {
      alpha.blank = extended_one();
    }
    if (begin + frames < T_n) {
      if (has_blank) {
        w.blank = unpack(checkpoints[behind]);
      }
      if (has_label) {
        w.label = unpack(checkpoints[behind + S + 1]);
      }
    } else if (i == S_n) {
      w.blank = extended_one();
    }
    // Lane f has what enters the window with frame f.
    const bool has_left = window > 0;
    const bool has_right = (window + 1) * 32 <= S_n;
    Extended left_label = extended_zero();
    Pair right = no_states();
    if (lane < frames) {
      const int64_t edge_count = metal::max(S / 32, 1);
      const int64_t edge = int64_t(n) * edges_shape[1] * edge_count + window;
      const int t = begin + lane;
      if (has_left) {
        left_label = unpack(edges[(edge - 1) * T + t]);
      }
      if (has_right) {
        const int64_t at = (edge + edge_count) * T + T_n - 1 - t;
        right.blank = unpack(edges[at]);
        right.label = unpack(edges[at + edge_count * T]);
      }
    }
#pragma unroll
    for (int f = 0; f < SEGMENT; ++f) {
      logits[simdgroup][f][lane] = loaded[f];
    }

    for (int f = 0; f < own + count; ++f) {
      const uint4 here = common[f];
      const Extended p_blank = Extended{as_type<float>(here.z), int(here.w)};
      const Extended p_label = probability(
          logits[simdgroup][f][lane],
          Unit{as_type<float>(here.x), int(here.y)});
      const Extended entering =
          has_left ? broadcast(left_label, f) : extended_zero();
      const Extended label_before =
          choose(lane == 0, entering, shuffle_up(alpha.label));
      alpha = emit(arrive(alpha, label_before, jump), p_blank, p_label);
      if (f >= own) {
        alpha_blank[simdgroup][f - own][lane] = pack(alpha.blank);
        alpha_label[simdgroup][f - own][lane] = pack(alpha.label);
      }
    }

    const float inverse_z = 1.0f / z.m;
    for (int f = frames - 1; f >= own; --f) {
      Pair entering = no_states();
      if (has_right) {
        entering = Pair{broadcast(right.blank, f), broadcast(right.label, f)};
      }
      const Pair pair_behind = choose(
          lane == 31,
          entering,
          Pair{shuffle_down(w.blank), shuffle_down(w.label)});
      const Pair beta = leave(w, pair_behind, jump_on); // beta-hat

      if (f < own + count) {
        const Extended blank = unpack(alpha_blank[simdgroup][f - own][lane]);
        const Extended label = unpack(alpha_label[simdgroup][f - own][lane]);
        // gamma = alpha beta-hat / Z
        const float label_gamma = label.m * beta.label.m * inverse_z *
            power_of_two(label.e + beta.label.e - z.e);
        const float blank_gamma = blank.m * beta.blank.m * inverse_z *
            power_of_two(blank.e + beta.blank.e - z.e);
        if (has_label) {
          gammas[f - own][i - part_begin] = label_gamma;
        }
        const float blanks = sum_of_lanes(blank_gamma);
        const float all = sum_of_lanes(blank_gamma + label_gamma);
        if (lane == 0) {
          blank_gammas[simdgroup][f - own] += blanks;
          frame_gammas[simdgroup][f - own] += all;
        }
      }

      const uint4 here = common[f];
      const Extended p_blank = Extended{as_type<float>(here.z), int(here.w)};
      const Extended p_label = probability(
          logits[simdgroup][f][lane],
          Unit{as_type<float>(here.x), int(here.y)});
      w = emit(beta, p_blank, p_label);
    }
  }
  metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);

  // gamma of a class is summed where the class comes first.
  for (int i = part_begin + thread_index; i < part_end; i += THREADS) {
    const int y = targets[target + i * targets_strides[1]];
    int next = nexts[int64_t(n) * S + i];
    if (heads[heads_at + y] != i) {
      next = -1;
    }
    while (next >= 0) {
      for (int f = 0; f < count; ++f) {
        gammas[f][i - part_begin] += gammas[f][next - part_begin];
      }
      next = nexts[int64_t(n) * S + next];
    }
  }
  if (thread_index < count) {
    for (int k = 1; k < SIMDGROUPS; ++k) {
      blank_gammas[0][thread_index] += blank_gammas[k][thread_index];
      frame_gammas[0][thread_index] += frame_gammas[k][thread_index];
    }
    // A frame's gamma sums to 1. Dividing by its sum takes out what alpha, w
    // and Z have gathered in rounding, unless parts of it are elsewhere.
    frame_gammas[0][thread_index] =
        S_n < PART ? 1.0f / frame_gammas[0][thread_index] : 1.0f;
  }
  metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);

  // Small rows are written several at a time. A thread asks for some frames'
  // logits before it uses the first.
  int width = THREADS;
  while (width / 2 >= C) {
    width /= 2;
  }
  const int at_once = THREADS / width;
  const int first = thread_index / width;
  for (int f0 = first; f0 < here && first < at_once; f0 += UNROLL * at_once) {
    for (int c = thread_index - first * width; c < C; c += width) {
      const int64_t from = item + c * class_stride + t0 * frame_stride;
      float x[UNROLL];
#pragma unroll
      for (int k = 0; k < UNROLL; ++k) {
        const int f = f0 + k * at_once;
        x[k] = 0.0f;
        if (f < count) {
          x[k] = float(log_probs[from + f * frame_stride]);
        }
      }
      const int head = count > 0 ? heads[heads_at + c] : -1;
      if (part > 0 && head < 0 && c != BLANK) {
        continue;
      }
#pragma unroll
      for (int k = 0; k < UNROLL; ++k) {
        const int f = f0 + k * at_once;
        if (f < here) {
          const int64_t to = (int64_t(t0 + f) * N + n) * C + c;
          float value = f < bad_count ? nan : 0.0f;
          if (f < count) {
            float gamma = head >= 0 ? gammas[f][head - part_begin] : 0.0f;
            gamma += c == BLANK ? blank_gammas[0][f] : 0.0f;
            gamma *= frame_gammas[0][f];
            value = part == 0
                ? weight * (plain_exp(x[k] - greatest[f]) * inverse[f] - gamma)
                : float(gradient[to]) - weight * gamma;
          }
          gradient[to] = ELEMENT(value);
        }
      }
    }
  }
  metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
  if (lane < FRAMES) {
    blank_gammas[simdgroup][lane] = 0.0f;
  }
  metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup);
}
