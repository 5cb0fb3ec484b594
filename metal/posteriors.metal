// gamma of every frame, the blanks summed and the labels one by one, or those
// of each class: a threadgroup rebuilds alpha and w inside one segment from the
// scan's checkpoints, as the gradient does, and writes its frames' rows.
//
// in   log_probs       (T, N, C) any strides
//      targets         (N, S)
//      input_lengths   (N)
//      target_lengths  (N)
//      normalisers, partition, checkpoints, edges, heads, nexts: see the scan
// out  by_label        (N, T, S + 1), the blank first
//      by_class        (N, T, C) with BY_CLASS
//
// LOGITS, BLANK, BY_CLASS    the op's options
// SEGMENT                    frames between checkpoints
// PART                       labels of a part of heads and nexts
// SIMDGROUPS                 in a threadgroup

constexpr int THREADS = 32 * SIMDGROUPS;
const float infinity = metal::numeric_limits<float>::infinity();
const float nan = metal::numeric_limits<float>::quiet_NaN();

threadgroup float logits[SIMDGROUPS][SEGMENT][32]; // of a window's labels
threadgroup uint64_t alpha_blank[SIMDGROUPS][SEGMENT][32];
threadgroup uint64_t alpha_label[SIMDGROUPS][SEGMENT][32];
threadgroup uint4 common[SEGMENT]; // the frames' units and blanks
threadgroup float blanks[SIMDGROUPS][SEGMENT]; // their gamma, summed
threadgroup float sums[SIMDGROUPS][SEGMENT]; // gamma of all states, summed

const int T = log_probs_shape[0];
const int N = log_probs_shape[1];
const int C = log_probs_shape[2];
const int S = targets_shape[1];
const int segment = int(threadgroup_position_in_grid.x);
const int begin = segment * SEGMENT;
const int n =
    int(threadgroup_position_in_grid.y +
        threadgroup_position_in_grid.z * threadgroups_per_grid.y);
if (n >= N) {
  return;
}
const int thread_index = int(thread_position_in_threadgroup.x);
const int simdgroup = int(simdgroup_index_in_threadgroup);
const int lane = int(thread_index_in_simdgroup);

// Of the `here` frames to write, those from `frames` on hold no path: they are
// 0, or NaN in a bad item.
const int here = metal::min(SEGMENT, T - begin);
const Extended z = unpack(partition[n]);
const bool bad = metal::isnan(z.m);
const int T_n =
    bad && z.e == 1 ? T : input_lengths[n * input_lengths_strides[0]];
const int left = metal::clamp(T_n - begin, 0, here);
const int bad_frames = bad ? left : 0;
const int frames = bad || is_zero(z) ? 0 : left;
const int S_n = frames > 0 ? target_lengths[n * target_lengths_strides[0]] : 0;

const int64_t item = n * log_probs_strides[1];
const int64_t frame_stride = log_probs_strides[0];
const int64_t class_stride = log_probs_strides[2];
const int64_t target = n * targets_strides[0];
const int64_t first_row = int64_t(n) * T + begin;

if (thread_index < frames) {
  const int t = begin + thread_index;
  const float top =
      LOGITS ? float(normalisers[(int64_t(n) * T + t) * 2]) : 0.0f;
  const Unit unit = unit_of(top);
  const Extended blank = probability(
      float(log_probs[item + BLANK * class_stride + t * frame_stride]), unit);
  common[thread_index] = uint4{
      as_type<uint>(unit.origin),
      uint(unit.bits),
      as_type<uint>(blank.m),
      uint(blank.e)};
}
if (lane < SEGMENT) {
  blanks[simdgroup][lane] = 0.0f;
  sums[simdgroup][lane] = 0.0f;
}
metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);

for (int window = simdgroup; frames > 0 && window * 32 <= S_n;
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
  const int64_t label_at = item + y * class_stride + begin * frame_stride;
  for (int f = 0; f < frames; ++f) {
    logits[simdgroup][f][lane] =
        has_label ? float(log_probs[label_at + f * frame_stride]) : -infinity;
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

  for (int f = 0; f < frames; ++f) {
    const uint4 frame = common[f];
    const Extended p_blank = Extended{as_type<float>(frame.z), int(frame.w)};
    const Extended p_label = probability(
        logits[simdgroup][f][lane],
        Unit{as_type<float>(frame.x), int(frame.y)});
    const Extended entering =
        has_left ? broadcast(left_label, f) : extended_zero();
    const Extended label_before =
        choose(lane == 0, entering, shuffle_up(alpha.label));
    alpha = emit(arrive(alpha, label_before, jump), p_blank, p_label);
    alpha_blank[simdgroup][f][lane] = pack(alpha.blank);
    alpha_label[simdgroup][f][lane] = pack(alpha.label);
  }

  const float inverse_z = 1.0f / z.m;
  for (int f = frames - 1; f >= 0; --f) {
    Pair entering = no_states();
    if (has_right) {
      entering = Pair{broadcast(right.blank, f), broadcast(right.label, f)};
    }
    const Pair pair_behind = choose(
        lane == 31,
        entering,
        Pair{shuffle_down(w.blank), shuffle_down(w.label)});
    const Pair beta = leave(w, pair_behind, jump_on); // beta-hat

    // gamma = alpha beta-hat / Z
    const Extended blank = unpack(alpha_blank[simdgroup][f][lane]);
    const Extended label = unpack(alpha_label[simdgroup][f][lane]);
    const float gamma_blank = blank.m * beta.blank.m * inverse_z *
        power_of_two(blank.e + beta.blank.e - z.e);
    const float gamma_label = has_label ? label.m * beta.label.m * inverse_z *
            power_of_two(label.e + beta.label.e - z.e)
                                        : 0.0f;
    if (has_label) {
      by_label[(first_row + f) * (S + 1) + i + 1] = gamma_label;
    }
    const float of_blanks = sum_of_lanes(gamma_blank);
    const float of_all = sum_of_lanes(gamma_blank + gamma_label);
    if (lane == 0) {
      blanks[simdgroup][f] += of_blanks;
      sums[simdgroup][f] += of_all;
    }

    const uint4 frame = common[f];
    const Extended p_blank = Extended{as_type<float>(frame.z), int(frame.w)};
    const Extended p_label = probability(
        logits[simdgroup][f][lane],
        Unit{as_type<float>(frame.x), int(frame.y)});
    w = emit(beta, p_blank, p_label);
  }
}
metal::threadgroup_barrier(
    metal::mem_flags::mem_device | metal::mem_flags::mem_threadgroup);

// A frame's posteriors sum to 1: dividing by their sum takes out the rounding
// that alpha, w and Z have gathered over the whole sequence.
if (thread_index < frames) {
  float of_blanks = 0.0f;
  float of_all = 0.0f;
  for (int k = 0; k < SIMDGROUPS; ++k) {
    of_blanks += blanks[k][thread_index];
    of_all += sums[k][thread_index];
  }
  blanks[0][thread_index] = of_blanks / of_all;
  sums[0][thread_index] = 1.0f / of_all;
}
metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
for (int f = 0; f < here; ++f) {
  for (int s = thread_index; s <= S; s += THREADS) {
    const int64_t at = (first_row + f) * (S + 1) + s;
    float value = f < bad_frames ? nan : 0.0f;
    if (f < frames && s <= S_n) {
      value = s > 0 ? by_label[at] * sums[0][f] : blanks[0][f];
    }
    by_label[at] = value;
  }
}
if (!BY_CLASS) {
  return;
}
metal::threadgroup_barrier(metal::mem_flags::mem_device);

// The places of a class, in order, part by part.
const int parts = S_n / PART + 1;
const int64_t listed = int64_t(S / PART + 1) * C; // of heads
for (int c = thread_index; c < C; c += THREADS) {
  float values[SEGMENT];
  for (int f = 0; f < SEGMENT; ++f) {
    values[f] = f < bad_frames ? nan : 0.0f;
    if (c == BLANK && f < frames) {
      values[f] = blanks[0][f];
    }
  }
  for (int part = 0; frames > 0 && part < parts; ++part) {
    int i = heads[n * listed + int64_t(part) * C + c];
    while (i >= 0) {
      for (int f = 0; f < frames; ++f) {
        values[f] += by_label[(first_row + f) * (S + 1) + i + 1];
      }
      i = nexts[int64_t(n) * S + i];
    }
  }
  for (int f = 0; f < here; ++f) {
    by_class[(first_row + f) * C + c] = values[f];
  }
}
