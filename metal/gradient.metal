// The gradient, cotangent * (softmax - gamma), all frames at once: a threadgroup
// rebuilds alpha and w inside one segment from the scan's checkpoints, sums
// gamma over the places of each class in order, and writes its frames' rows.
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
// SIMDGROUPS       in a threadgroup, a power of two

  constexpr int THREADS = 32 * SIMDGROUPS;
  const float infinity = metal::numeric_limits<float>::infinity();

  threadgroup float gammas[FRAMES * CAPACITY]; // of labels, then of classes
  threadgroup float blank_parts[SIMDGROUPS][FRAMES];
  threadgroup float greatest[FRAMES];
  threadgroup float inverse[FRAMES]; // 1 / sum of exp(logit - greatest)
  threadgroup float origins[FRAMES]; // with unit_bits, the frames' units
  threadgroup int unit_bits[FRAMES];
  threadgroup float blank_gammas[FRAMES];

  const int T = log_probs_shape[0];
  const int N = log_probs_shape[1];
  const int C = log_probs_shape[2];
  const int S = targets_shape[1];
  const int t0 = int(threadgroup_position_in_grid.x) * FRAMES;
  const int n = int(
      threadgroup_position_in_grid.y +
      threadgroup_position_in_grid.z * threadgroups_per_grid.y);
  if (n >= N) {
    return;
  }
  const int here = metal::min(FRAMES, T - t0); // frames to write
  const int thread_index = int(thread_position_in_threadgroup.x);
  const int simdgroup = int(simdgroup_index_in_threadgroup);
  const int lane = int(thread_index_in_simdgroup);

  // Frames from `count` on hold no path: they are 0, or NaN in a bad item.
  const float weight = cotangent[n * cotangent_strides[0]];
  const Extended z = unpack(partition[n]);
  const bool bad = metal::isnan(z.m);
  const bool out_of_range = bad && z.e == 1;
  const int T_n = out_of_range ? T : input_lengths[n * input_lengths_strides[0]];
  const bool empty = bad || weight == 0.0f || is_zero(z);
  const int count = empty ? 0 : metal::clamp(T_n - t0, 0, here);
  const int bad_count = bad && weight != 0.0f ? metal::clamp(T_n - t0, 0, here) : 0;

  const int64_t item = n * log_probs_strides[1];
  const int64_t frame_stride = log_probs_strides[0];
  const int64_t class_stride = log_probs_strides[2];

  if (thread_index < count) {
    const int64_t at = (int64_t(n) * T + t0 + thread_index) * 2;
    const float top = LOGITS ? float(normalisers[at]) : 0.0f;
    const Unit unit = unit_of(top);
    greatest[thread_index] = top;
    inverse[thread_index] = LOGITS ? float(normalisers[at + 1]) : 1.0f;
    origins[thread_index] = unit.origin;
    unit_bits[thread_index] = unit.bits;
  }
  metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);

  const int S_n = count > 0 ? target_lengths[n * target_lengths_strides[0]] : 0;
  const int64_t listed = int64_t(S / PART + 1) * C; // of heads

  for (int part = 0; part * PART <= S_n; ++part) {
  const int part_begin = part * PART;
  const int64_t heads_at = n * listed + int64_t(part) * C;
  if (count > 0) {
    const int64_t target = n * targets_strides[0];
    const int segment = t0 / SEGMENT;
    const int segment_begin = segment * SEGMENT;
    const int segment_end = metal::min(segment_begin + SEGMENT, T_n);
    const int64_t B = (T + SEGMENT - 1) / SEGMENT;
    const int64_t edge_count = metal::max(S / 32, 1);
    const int64_t rows = S / 32 > 0 ? edges_shape[1] : 0;

    // exp(-log Z) as one factor of every gamma.
    const float inverse_z = 1.0f / z.m;

    if (lane < FRAMES) {
      blank_parts[simdgroup][lane] = 0.0f;
    }
    metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup);

    for (int window = part_begin / 32 + simdgroup;
         window * 32 <= S_n && window * 32 < part_begin + PART;
         window += SIMDGROUPS) {
      const int i = window * 32 + lane;
      const bool has_label = i < S_n;
      const int y = has_label ? targets[target + i * targets_strides[1]] : BLANK;
      int jump = zero_exponent; // from the label before
      int jump_on = zero_exponent; // to the label behind
      if (i > 0 && has_label &&
          targets[target + (i - 1) * targets_strides[1]] != y) {
        jump = 0;
      }
      if (i + 1 < S_n && targets[target + (i + 1) * targets_strides[1]] != y) {
        jump_on = 0;
      }
      const int64_t label_at = item + y * class_stride;
      const int64_t blank_at = item + BLANK * class_stride;
      const bool left = window > 0;
      const bool right = (window + 1) * 32 <= S_n;
      const int64_t edge = int64_t(n) * rows * edge_count + window;

      float logits[FRAMES];
      #pragma unroll
      for (int f = 0; f < FRAMES; ++f) {
        logits[f] = -infinity;
        if (f < count && has_label) {
          logits[f] = float(log_probs[label_at + (t0 + f) * frame_stride]);
        }
      }
      // Lane f has frame f's blank and edges.
      Extended p_blank = extended_one();
      Extended from_left = extended_zero();
      Extended from_right_blank = extended_zero();
      Extended from_right_label = extended_zero();
      if (lane < count) {
        const int t = t0 + lane;
        const float x = float(log_probs[blank_at + t * frame_stride]);
        p_blank = probability(x, Unit{origins[lane], unit_bits[lane]});
        if (left) {
          from_left = unpack(edges[(edge - 1) * T + t]);
        }
        if (right) {
          from_right_blank = unpack(edges[(edge + edge_count) * T + T_n - 1 - t]);
          from_right_label =
              unpack(edges[(edge + 2 * edge_count) * T + T_n - 1 - t]);
        }
      }

      // alpha, from the frame before the segment.
      Pair state = no_states();
      if (segment == 0) {
        if (i == 0) {
          state.blank = extended_one();
        }
      } else {
        const int64_t at =
            (int64_t(n) * 2 * B + segment - 1) * 2 * (S + 1);
        if (i <= S_n) {
          state.blank = unpack(checkpoints[at + i]);
        }
        if (has_label) {
          state.label = unpack(checkpoints[at + S + 1 + i]);
        }
      }
      for (int t = segment_begin; FRAMES < SEGMENT && t < t0; ++t) {
        const Unit unit = unit_of(
            LOGITS ? float(normalisers[(int64_t(n) * T + t) * 2]) : 0.0f);
        const float x = has_label
            ? float(log_probs[label_at + t * frame_stride])
            : -infinity;
        const float x_blank = float(log_probs[blank_at + t * frame_stride]);
        Extended before = shuffle_up(state.label);
        if (lane == 0) {
          before = left ? unpack(edges[(edge - 1) * T + t]) : extended_zero();
        }
        state = normalise(emit(
            arrive(state, before, jump),
            probability(x_blank, unit),
            probability(x, unit)));
      }
      Pair alpha[FRAMES];
      Extended p_label[FRAMES];
      #pragma unroll
      for (int f = 0; f < FRAMES; ++f) {
        p_label[f] = extended_zero();
        if (f < count) {
          p_label[f] = probability(logits[f], Unit{origins[f], unit_bits[f]});
          Extended before = shuffle_up(state.label);
          const Extended entering = broadcast(from_left, f);
          if (lane == 0) {
            before = entering;
          }
          state = emit(
              arrive(state, before, jump), broadcast(p_blank, f), p_label[f]);
        }
        alpha[f] = state;
      }

      // w, from the frame behind the segment.
      state = no_states();
      if (segment_end == T_n) {
        if (i == S_n) {
          state.blank = extended_one();
        }
      } else {
        const int64_t at =
            ((int64_t(n) * 2 + 1) * B + segment + 1) * 2 * (S + 1);
        if (i <= S_n) {
          state.blank = unpack(checkpoints[at + i]);
        }
        if (has_label) {
          state.label = unpack(checkpoints[at + S + 1 + i]);
        }
      }
      for (int t = segment_end - 1; FRAMES < SEGMENT && t >= t0 + count; --t) {
        const Unit unit = unit_of(
            LOGITS ? float(normalisers[(int64_t(n) * T + t) * 2]) : 0.0f);
        const float x = has_label
            ? float(log_probs[label_at + t * frame_stride])
            : -infinity;
        const float x_blank = float(log_probs[blank_at + t * frame_stride]);
        Pair behind = Pair{shuffle_down(state.blank), shuffle_down(state.label)};
        if (lane == 31) {
          behind = no_states();
          if (right) {
            behind.blank = unpack(edges[(edge + edge_count) * T + T_n - 1 - t]);
            behind.label =
                unpack(edges[(edge + 2 * edge_count) * T + T_n - 1 - t]);
          }
        }
        state = normalise(emit(
            leave(state, behind, jump_on),
            probability(x_blank, unit),
            probability(x, unit)));
      }
      #pragma unroll
      for (int f = FRAMES - 1; f >= 0; --f) {
        if (f < count) {
          Pair behind = Pair{shuffle_down(state.blank), shuffle_down(state.label)};
          const Extended entering_blank = broadcast(from_right_blank, f);
          const Extended entering_label = broadcast(from_right_label, f);
          if (lane == 31) {
            behind = Pair{entering_blank, entering_label};
          }
          state = leave(state, behind, jump_on); // beta-hat

          // gamma = alpha beta-hat / Z
          const float label_gamma = alpha[f].label.m * state.label.m * inverse_z *
              power_of_two(alpha[f].label.e + state.label.e - z.e);
          const float blank_gamma = alpha[f].blank.m * state.blank.m * inverse_z *
              power_of_two(alpha[f].blank.e + state.blank.e - z.e);
          if (has_label) {
            gammas[f * CAPACITY + i - part_begin] = label_gamma;
          }
          const float blanks = sum_of_lanes(blank_gamma);
          if (lane == 0) {
            blank_parts[simdgroup][f] += blanks;
          }
          state = emit(state, broadcast(p_blank, f), p_label[f]);
        }
      }
    }

    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);

    // gamma of a class is summed where the class comes first.
    const int part_end = metal::min(part_begin + PART, S_n);
    for (int i = part_begin + thread_index; i < part_end; i += THREADS) {
      const int64_t at = int64_t(n) * S;
      int next = nexts[at + i];
      const int y = targets[target + i * targets_strides[1]];
      if (next >= 0 && heads[heads_at + y] == i) {
        float total[FRAMES];
        #pragma unroll
        for (int f = 0; f < FRAMES; ++f) {
          total[f] = f < count ? gammas[f * CAPACITY + i - part_begin] : 0.0f;
        }
        while (next >= 0) {
          #pragma unroll
          for (int f = 0; f < FRAMES; ++f) {
            total[f] += f < count ? gammas[f * CAPACITY + next - part_begin] : 0.0f;
          }
          next = nexts[at + next];
        }
        #pragma unroll
        for (int f = 0; f < FRAMES; ++f) {
          if (f < count) {
            gammas[f * CAPACITY + i - part_begin] = total[f];
          }
        }
      }
    }
    if (thread_index < count) {
      float total = 0.0f;
      for (int part = 0; part < SIMDGROUPS; ++part) {
        total += blank_parts[part][thread_index];
      }
      blank_gammas[thread_index] = total;
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
  }

  // Small rows are written several at a time. All of a thread's loads are
  // under way before the first is used.
  int width = THREADS;
  while (width / 2 >= C) {
    width /= 2;
  }
  const int at_once = THREADS / width;
  const int first = thread_index / width;
  for (int c = thread_index - first * width; c < C; c += width) {
    float x[FRAMES];
    #pragma unroll
    for (int k = 0; k < FRAMES; ++k) {
      const int f = first + k * at_once;
      x[k] = 0.0f;
      if (f < count) {
        x[k] = float(
            log_probs[item + c * class_stride + (t0 + f) * frame_stride]);
      }
    }
    const int head = count > 0 ? heads[heads_at + c] : -1;
    if (part > 0 && head < 0 && c != BLANK) {
      continue;
    }
    #pragma unroll
    for (int k = 0; k < FRAMES; ++k) {
      const int f = first + k * at_once;
      if (f < here) {
        const int64_t to = (int64_t(t0 + f) * N + n) * C + c;
        float value =
            f < bad_count ? metal::numeric_limits<float>::quiet_NaN() : 0.0f;
        if (f < count) {
          float gamma =
              head >= 0 ? gammas[f * CAPACITY + head - part_begin] : 0.0f;
          gamma += c == BLANK ? blank_gammas[f] : 0.0f;
          value = part == 0
              ? weight * (plain_exp(x[k] - greatest[f]) * inverse[f] - gamma)
              : float(gradient[to]) - weight * gamma;
        }
        gradient[to] = ELEMENT(value);
      }
    }
  }
  metal::threadgroup_barrier(
      metal::mem_flags::mem_device | metal::mem_flags::mem_threadgroup);
  }
