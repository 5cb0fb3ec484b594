// alpha and w (recursion.metal) over all frames of a sequence, and from alpha
// the loss. A third threadgroup lists the equal labels for the gradient.
//
// A lane holds one pair of states in registers for all frames, a simdgroup a
// window of 32 pairs. The only thing that passes from lane to lane is a label,
// and it passes one way: so the simdgroups need not keep step. Each runs one
// block of FRAMES frames behind the simdgroup before it, and they meet once in
// a block. More windows than simdgroups are done in rounds. While a block is
// computed, the next one's logits are under way.
//
// in   log_probs       (T, N, C) any strides
//      targets         (N, S)
//      input_lengths   (N)
//      target_lengths  (N)
//      normalisers     (N, T, 2) of logits; not read for log-probabilities
// out  loss            (N)
//      partition       (N) Z without the frames' normalisers. A mantissa of NaN
//                      marks an item with bad numbers; with exponent 1, an item
//                      with a label or length out of range
//      checkpoints     (N, 2, B, 2, S + 1) alpha's blanks and labels after the
//                      last frame of a segment, and w's at its first frame
//      edges           (N, 3, V, T) what enters window v + 1 at frame t from
//                      its left, alpha's label (0), and window v from its
//                      right, w's blank (1) and label (2), w's frames from the
//                      last to the first; with ROUNDS a fourth for the scan
//      heads           (N, P, C) the first place of a class in a part of the
//                      target, or -1
//      nexts           (N, S) the label's next place in its part, or -1
//
// B = ceil(T / SEGMENT), V = S / 32 windows but the last, P = S / PART + 1
//
// LOGITS, BLANK, ZERO_INFINITY    the op's options
// ROUNDS                          there may be more windows than simdgroups
// SEGMENT                         frames between checkpoints
// FRAMES                          frames of a block, a multiple of SEGMENT
// PART                            labels of a part, see the gradient
// MAX_SIMDGROUPS                  room for so many in a threadgroup

const float infinity = metal::numeric_limits<float>::infinity();

// A block's labels' logits, its units and blanks, and the labels that enter.
// Room for two frames more, since they are fetched that early.
constexpr int ROOM = FRAMES + 2;
threadgroup float logits[MAX_SIMDGROUPS][ROOM][32];
threadgroup uint4 common[MAX_SIMDGROUPS][ROOM];
threadgroup uint64_t inbox[MAX_SIMDGROUPS][2][ROOM];
threadgroup uint64_t last[2]; // alpha's two states that end a path
threadgroup uint64_t scale[MAX_SIMDGROUPS]; // product of units over sums
threadgroup int flags[MAX_SIMDGROUPS];

const int T = log_probs_shape[0];
const int C = log_probs_shape[2];
const int S = targets_shape[1];
const int n = int(threadgroup_position_in_grid.x);
const int task = int(threadgroup_position_in_grid.y);
const int threads = int(threads_per_threadgroup.x);
const int simdgroups = threads / 32;
const int thread_index = int(thread_position_in_threadgroup.x);
const int simdgroup = int(simdgroup_index_in_threadgroup);
const int lane = int(thread_index_in_simdgroup);

// What is out of range is looked for first, then never used.
int T_n = input_lengths[n * input_lengths_strides[0]];
int S_n = target_lengths[n * target_lengths_strides[0]];
bool in_range = T_n >= 0 && T_n <= T && S_n >= 0 && S_n <= S;
const int64_t target = n * targets_strides[0];
if (in_range) {
  for (int i = thread_index; i < S_n; i += threads) {
    const int y = targets[target + i * targets_strides[1]];
    in_range = in_range && y >= 0 && y < C;
  }
}
in_range = metal::simd_all(in_range);
if (lane == 0) {
  flags[simdgroup] = in_range ? 1 : 0;
}
for (int f = 0; f < ROOM; ++f) {
  logits[simdgroup][f][lane] = 0.0f;
  if (lane == f) {
    common[simdgroup][f] = uint4{0, 0, 0, 0};
    inbox[simdgroup][0][f] = pack(extended_zero());
    inbox[simdgroup][1][f] = pack(extended_zero());
  }
}
metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
for (int i = 0; i < simdgroups; ++i) {
  in_range = in_range && flags[i] != 0;
}
T_n = in_range ? T_n : 0;
S_n = in_range ? S_n : 0;

if (task == 2) {
  const int64_t listed = int64_t(S / PART + 1) * C; // of heads
  for (int64_t i = thread_index; i < listed; i += threads) {
    heads[n * listed + i] = -1;
  }
  metal::threadgroup_barrier(metal::mem_flags::mem_device);
  for (int i = thread_index; i < S_n; i += threads) {
    const int y = targets[target + i * targets_strides[1]];
    const int begin = i / PART * PART;
    const int end = metal::min(begin + PART, S_n);
    int next = i + 1;
    while (next < end && targets[target + next * targets_strides[1]] != y) {
      ++next;
    }
    nexts[int64_t(n) * S + i] = next < end ? next : -1;
    int before = i - 1;
    while (before >= begin &&
           targets[target + before * targets_strides[1]] != y) {
      --before;
    }
    if (before < begin) {
      heads[n * listed + int64_t(i / PART) * C + y] = i;
    }
  }
  return;
}

const bool backward = task == 1;
const int windows = S_n / 32 + 1;
const int blocks = (T_n + FRAMES - 1) / FRAMES;
const int rows = ROUNDS ? 4 : 3; // of edges
const int64_t frame_stride = log_probs_strides[0];
const int64_t item = n * log_probs_strides[1];
const int64_t blank_at = item + BLANK * log_probs_strides[2];
bool good = true;

for (int first = 0; first < windows; first += simdgroups) {
  const int window = first + simdgroup;
  const int working = metal::min(simdgroups, windows - first);
  const int edge_count = metal::max(S / 32, 1);

  // Backward, the first lane has the last pair, and a pair is a blank with
  // the label before it.
  const int place = window * 32 + lane;
  const int blank_index = backward ? windows * 32 - 1 - place : place;
  const int label_index = backward ? blank_index - 1 : blank_index;
  const bool has_blank = simdgroup < working && blank_index <= S_n;
  const bool has_label =
      simdgroup < working && label_index >= 0 && label_index < S_n;
  int y = BLANK;
  int jump = zero_exponent;
  if (has_label) {
    y = targets[target + label_index * targets_strides[1]];
    const int other = backward ? label_index + 1 : label_index - 1;
    if (other >= 0 && other < S_n) {
      jump =
          targets[target + other * targets_strides[1]] != y ? 0 : zero_exponent;
    }
  }
  const int64_t label_at = item + y * log_probs_strides[2];
  // What this lane writes of what enters the next window: (T).
  const bool has_edge = simdgroup < working && window + 1 < windows &&
      (lane == 31 || (backward && lane == 30));
  const bool edge_is_blank = backward && lane == 31;
  const bool has_next = lane == 31 && simdgroup + 1 < working;
  const int64_t edge_row = backward ? (lane == 31 ? 1 : 2) : 0;
  const int64_t edge = backward ? windows - 2 - window : window;
  device uint64_t* leaving =
      edges + ((int64_t(n) * rows + edge_row) * edge_count + edge) * T;
  const int64_t to_row_3 = 2 * edge_count * int64_t(T);

  // Before its first frame a path is at its first blank.
  Pair state = no_states();
  if (blank_index == (backward ? S_n : 0)) {
    state.blank = extended_one();
  }

  for (int phase = -1; phase < blocks + working - 1; ++phase) {
    const int block = phase - simdgroup;
    const bool now = simdgroup < working && block >= 0 && block < blocks;
    const bool loads = simdgroup < working && block >= -1 && block + 1 < blocks;

    // The next block's logits: this lane's label's, and in lane f the blank's
    // of frame f. The block has `more` frames, the first scanned is `start`.
    float loaded[FRAMES];
    float loaded_blank = 0.0f;
    float loaded_greatest = 0.0f;
    if (loads) {
      const int t0 = (backward ? blocks - 2 - block : block + 1) * FRAMES;
      const int more = metal::min(FRAMES, T_n - t0);
      const int start = backward ? t0 + more - 1 : t0;
      const int64_t step = backward ? -frame_stride : frame_stride;
      const int64_t at = label_at + start * frame_stride;
#pragma unroll
      for (int f = 0; f < FRAMES; ++f) {
        loaded[f] = -infinity; // as lanes without a label have it
        if (f < more && has_label) {
          loaded[f] = float(log_probs[at + f * step]);
        }
      }
      if (lane < more) {
        const int t = backward ? start - lane : start + lane;
        loaded_blank = float(log_probs[blank_at + t * frame_stride]);
        if (LOGITS) {
          loaded_greatest = normalisers[(int64_t(n) * T + t) * 2];
        }
      }
    }

    const int t0 = (backward ? blocks - 1 - block : block) * FRAMES;
    const int count = now ? metal::min(FRAMES, T_n - t0) : 0;
    const int scanned = backward ? T_n - t0 - count : t0; // frames before
    const int slot = block & 1;

    // A round's first window continues from the last of the round before.
    if (ROUNDS && first > 0 && simdgroup == 0) {
      if (lane < count) {
        const int from = backward ? windows - 1 - window : window - 1;
        const int64_t row = int64_t(n) * rows + (backward ? 3 : 0);
        inbox[0][slot][lane] =
            edges[(row * edge_count + from) * T + scanned + lane];
      }
      metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup);
    }

    // The numbers of the frames to come are fetched and made while the chain
    // from state to state runs.
    Extended entering = extended_zero();
    Extended p_label = extended_zero();
    Extended p_blank = extended_zero();
    float logit = 0.0f; // of the next frame, as is its unit
    uint4 ahead = uint4{0, 0, 0, 0};
    if (count > 0) {
      const uint4 here = common[simdgroup][0];
      entering = unpack(inbox[simdgroup][slot][0]);
      p_blank = Extended{as_type<float>(here.z), int(here.w)};
      p_label = probability(
          logits[simdgroup][0][lane],
          Unit{as_type<float>(here.x), int(here.y)});
      logit = logits[simdgroup][1][lane];
      ahead = common[simdgroup][1];
    }
    int f = 0;
    while (f < count) {
      // Up to where a segment ends, for alpha, or begins, for w.
      const int stop = backward
          ? count - (count - f - 1) / SEGMENT * SEGMENT
          : metal::min(count, (f / SEGMENT + 1) * SEGMENT);
#pragma unroll SEGMENT
      for (; f < stop; ++f) {
        const Extended from_lane = shuffle_up(state.label);

        // What enters the next window with this frame.
        const uint64_t label = pack(state.label);
        const uint64_t at_edge = edge_is_blank ? pack(state.blank) : label;
        if (has_next) {
          inbox[simdgroup + 1][slot][f] = label;
        }
        if (has_edge) {
          *leaving = at_edge;
        }
        if (ROUNDS && has_edge && edge_is_blank) {
          leaving[to_row_3] = label;
        }
        ++leaving;

        const Extended entering_next = unpack(inbox[simdgroup][slot][f + 1]);
        const float logit_next = logits[simdgroup][f + 2][lane];
        const uint4 ahead_next = common[simdgroup][f + 2];

        const Extended label_before = choose(lane == 0, entering, from_lane);
        state = emit(arrive(state, label_before, jump), p_blank, p_label);

        // Bad log-probabilities; the normalisers tell of bad logits.
        good = good && (LOGITS || f + 1 >= count || logit < 2.9e6f);
        p_label =
            probability(logit, Unit{as_type<float>(ahead.x), int(ahead.y)});
        p_blank = Extended{as_type<float>(ahead.z), int(ahead.w)};
        entering = entering_next;
        logit = logit_next;
        ahead = ahead_next;
      }
      state = normalise(state);

      const int end = backward ? t0 + count - f : t0 + f;
      if (end % SEGMENT == 0 && end > 0 && end < T_n) {
        const int64_t B = (T + SEGMENT - 1) / SEGMENT;
        const int64_t segment = backward ? end / SEGMENT : end / SEGMENT - 1;
        const int64_t at =
            ((int64_t(n) * 2 + task) * B + segment) * 2 * (S + 1);
        if (has_blank) {
          checkpoints[at + blank_index] = pack(state.blank);
        }
        if (has_label) {
          checkpoints[at + S + 1 + label_index] = pack(state.label);
        }
      }
    }

    if (loads) {
#pragma unroll
      for (int f = 0; f < FRAMES; ++f) {
        logits[simdgroup][f][lane] = loaded[f];
      }
      const Unit unit = unit_of(loaded_greatest);
      const Extended blank = probability(loaded_blank, unit);
      metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup);
      if (lane < FRAMES) {
        common[simdgroup][lane] = uint4{
            as_type<uint>(unit.origin),
            uint(unit.bits),
            as_type<uint>(blank.m),
            uint(blank.e)};
      }
      good = good && (LOGITS || loaded[0] < 2.9e6f);
      good = good && (LOGITS || loaded_blank < 2.9e6f);
    }
    metal::threadgroup_barrier(
        metal::mem_flags::mem_device | metal::mem_flags::mem_threadgroup);
  }

  if (simdgroup < working && !backward) {
    if (blank_index == S_n) {
      last[0] = pack(state.blank);
      if (S_n == 0) {
        last[1] = pack(extended_zero());
      }
    }
    if (label_index == S_n - 1) {
      last[1] = pack(state.label);
    }
  }
}

if (backward) {
  return;
}

// The product over all frames of their unit over their sum.
Extended inverse = extended_one();
if (LOGITS) {
  for (int t = thread_index; t < T_n; t += threads) {
    const float greatest = normalisers[(int64_t(n) * T + t) * 2];
    const float factor = normalisers[(int64_t(n) * T + t) * 2 + 1];
    good = good && factor > 0.0f;
    // The frame's unit over its sum.
    const Extended top = probability(greatest, unit_of(greatest));
    inverse = normalise(Extended{inverse.m * (factor / top.m), inverse.e});
  }
  for (int step = 16; step > 0; step /= 2) {
    inverse.m *= metal::simd_shuffle_xor(inverse.m, step);
    inverse.e += metal::simd_shuffle_xor(inverse.e, step);
  }
}
good = metal::simd_all(good);
if (lane == 0) {
  flags[simdgroup] = good ? 1 : 0;
  scale[simdgroup] = pack(normalise(inverse));
}
metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
if (thread_index != 0) {
  return;
}

// Eq. 8: a path ends at the last blank or the last label.
const Extended z = normalise(sum(unpack(last[0]), unpack(last[1])));
Extended normalised = z;
for (int i = 0; i < simdgroups; ++i) {
  good = good && flags[i] != 0;
  normalised = normalise(product(normalised, unpack(scale[i])));
}

float value = minus_log(normalised);
// Rounding may put the loss of a certain alignment a little below zero, and an
// exact one has no sign.
if (value <= 0.0f && value >= -1.2e-7f * float(T_n)) {
  value = 0.0f;
}
if (is_zero(z)) {
  value = ZERO_INFINITY ? 0.0f : infinity;
}
const float nan = metal::numeric_limits<float>::quiet_NaN();
loss[n] = in_range && good ? value : nan;
partition[n] =
    in_range && good ? pack(z) : pack(Extended{nan, in_range ? 0 : 1});
