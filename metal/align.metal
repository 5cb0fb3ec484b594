// The best alignment of each target with its frames: the Viterbi recursion,
// alpha's with the greatest term in place of the sum, and then its path from
// the last frame back.
//
// The lattice is held as in the scan: a lane has one pair of states in
// registers for all frames, (the blank before label i, label i), a simdgroup a
// window of 32 pairs, a block of frames behind the one before it. How a frame's
// paths came into a pair takes 4 bits, a block's 32. On ties a path would
// rather stay than step, and rather step than jump.
//
// in   log_probs       (T, N, C) any strides
//      targets         (N, S)
//      input_lengths   (N)
//      target_lengths  (N)
//      normalisers     (N, T, 2) of logits; not read for log-probabilities
// out  alignments      (N, T)
//      scores          (N, T)
//      moves           (N, B, S + 1) how a block's frames came into each pair
//      edges           (N, 2, T) with ROUNDS, the labels that enter the next
//                      round's first window, in rounds even and odd
//
// B = ceil(T / 8) blocks
//
// LOGITS, BLANK     the op's options
// ROUNDS            whether there may be more windows than simdgroups
// MAX_SIMDGROUPS    room for so many in a threadgroup

#include "extended.h"
#include "fixed_point.h"

constexpr int FRAMES = 8; // of a block
// The bits of a move. Without any, blank and label stayed where they were.
constexpr uint to_blank = 1; // from the label before
constexpr uint step = 2; // to the label, from its blank
constexpr uint jump = 4; // to the label, from the label before
const float infinity = metal::numeric_limits<float>::infinity();
const float nan = metal::numeric_limits<float>::quiet_NaN();

threadgroup int64_t inbox[MAX_SIMDGROUPS][2][FRAMES]; // labels that enter
threadgroup int64_t last[2]; // the blank and the label that end a path
threadgroup int flags[MAX_SIMDGROUPS];

const int T = log_probs_shape[0];
const int C = log_probs_shape[2];
const int S = targets_shape[1];
const int B = (T + FRAMES - 1) / FRAMES;
const int n = int(threadgroup_position_in_grid.x);
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
    in_range = in_range && y >= 0 && y < C && y != BLANK;
  }
}
in_range = metal::simd_all(in_range);
if (lane == 0) {
  flags[simdgroup] = in_range ? 1 : 0;
}
if (thread_index < 2 * FRAMES) {
  inbox[0][thread_index / FRAMES][thread_index % FRAMES] = impossible;
}
metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
for (int i = 0; i < simdgroups; ++i) {
  in_range = in_range && flags[i] != 0;
}
T_n = in_range ? T_n : 0;
S_n = in_range ? S_n : 0;

const int windows = S_n / 32 + 1;
const int blocks = (T_n + FRAMES - 1) / FRAMES;
const int64_t frame_stride = log_probs_strides[0];
const int64_t class_stride = log_probs_strides[2];
const int64_t item = n * log_probs_strides[1];
const int64_t blank_at = item + BLANK * class_stride;
bool good = true;

// Of a frame's scores. Those of logits are taken less the greatest one.
float greatest_score = 2305843009213693952.0f; // 2^61
for (int frames = T_n - 1; !LOGITS && frames > 0; frames /= 2) {
  greatest_score *= 0.5f;
}

for (int first = 0; first < windows; first += simdgroups) {
  const int window = first + simdgroup;
  const int working = metal::min(simdgroups, windows - first);
  const int round = first / simdgroups;
  const int i = window * 32 + lane;
  const bool has_blank = simdgroup < working && i <= S_n;
  const bool has_label = simdgroup < working && i < S_n;
  int y = BLANK;
  int64_t jumping = impossible; // added to a jump, which may be forbidden
  if (has_label) {
    y = targets[target + i * targets_strides[1]];
    if (i > 0 && targets[target + (i - 1) * targets_strides[1]] != y) {
      jumping = 0;
    }
  }
  const int64_t label_at = item + y * class_stride;
  const bool has_next = lane == 31 && simdgroup + 1 < working;
  const bool has_edge =
      lane == 31 && simdgroup + 1 == working && window + 1 < windows;

  // Before the first frame a path is at the first blank.
  int64_t blank = i == 0 ? 0 : impossible;
  int64_t label = impossible;

  // Scores of the block to come: of this lane's label, and in lane f those of
  // the blank and of the greatest class in frame f.
  float waiting[FRAMES];
  float waiting_blank = 0.0f;
  float waiting_greatest = 0.0f;
#pragma unroll
  for (int f = 0; f < FRAMES; ++f) {
    waiting[f] = -infinity;
  }

  for (int phase = -1; phase < blocks + working - 1; ++phase) {
    const int block = phase - simdgroup;
    const int t0 = block * FRAMES;
    const bool now = simdgroup < working && block >= 0 && block < blocks;
    const int count = now ? metal::min(FRAMES, T_n - t0) : 0;
    const int slot = block & 1;

    float loaded[FRAMES];
    float loaded_blank = 0.0f;
    float loaded_greatest = 0.0f;
    const bool loads = simdgroup < working && block >= -1 && block + 1 < blocks;
    const int start = t0 + FRAMES;
    const int more = loads ? metal::min(FRAMES, T_n - start) : 0;
#pragma unroll
    for (int f = 0; f < FRAMES; ++f) {
      loaded[f] = -infinity; // as lanes without a label have it
      if (f < more && has_label) {
        loaded[f] = float(log_probs[label_at + (start + f) * frame_stride]);
      }
    }
    if (lane < more) {
      const int t = start + lane;
      loaded_blank = float(log_probs[blank_at + t * frame_stride]);
      if (LOGITS) {
        loaded_greatest = normalisers[(int64_t(n) * T + t) * 2];
      }
    }

    // A round's first window continues from the last of the round before.
    if (ROUNDS && first > 0 && simdgroup == 0) {
      if (lane < count) {
        inbox[0][slot][lane] =
            edges[(int64_t(n) * 2 + (round + 1) % 2) * T + t0 + lane];
      }
      metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup);
    }

    uint word = 0;
#pragma unroll
    for (int f = 0; f < FRAMES; ++f) {
      if (f < count) {
        const float blank_logit = metal::simd_broadcast(waiting_blank, f);
        const float greatest = metal::simd_broadcast(waiting_greatest, f);
        good = good && blank_logit < infinity && waiting[f] < infinity;
        int64_t blank_score = fixed_point(blank_logit, greatest_score);
        int64_t label_score = fixed_point(waiting[f], greatest_score);
        if (LOGITS) {
          const int64_t top = fixed_point(greatest, greatest_score);
          blank_score = less_greatest(blank_score, top);
          label_score = less_greatest(label_score, top);
        }

        // What enters the next window with this frame.
        if (has_next) {
          inbox[simdgroup + 1][slot][f] = label;
        }
        if (ROUNDS && has_edge) {
          edges[(int64_t(n) * 2 + round % 2) * T + t0 + f] = label;
        }
        int64_t before = shuffle_up(label);
        if (lane == 0) {
          before = inbox[simdgroup][slot][f];
        }

        const int64_t stepped = greater(label, blank);
        const int64_t jumped = before + jumping;
        const uint move = (before > blank ? to_blank : 0) |
            (blank > label ? step : 0) | (jumped > stepped ? jump : 0);
        word |= move << (4 * f);
        blank = greater(greater(blank, before) + blank_score, impossible);
        label = greater(greater(stepped, jumped) + label_score, impossible);
      }
    }
    if (count > 0 && has_blank) {
      moves[(int64_t(n) * B + block) * (S + 1) + i] = word;
    }

#pragma unroll
    for (int f = 0; f < FRAMES; ++f) {
      waiting[f] = loaded[f];
    }
    waiting_blank = loaded_blank;
    waiting_greatest = loaded_greatest;
    metal::threadgroup_barrier(
        metal::mem_flags::mem_device | metal::mem_flags::mem_threadgroup);
  }

  if (has_blank && i == S_n) {
    last[0] = blank;
  }
  if (has_label && i == S_n - 1) {
    last[1] = label;
  }
}

if (LOGITS) {
  for (int t = thread_index; t < T_n; t += threads) {
    const float factor = normalisers[(int64_t(n) * T + t) * 2 + 1];
    good = good && factor > 0.0f;
  }
}
good = metal::simd_all(good);
if (lane == 0) {
  flags[simdgroup] = good ? 1 : 0;
}
metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
for (int i = 0; i < simdgroups; ++i) {
  good = good && flags[i] != 0;
}

// A path ends in the last label or the blank after it.
bool in_label = S_n > 0 && last[1] >= last[0];
const int64_t score = in_label ? last[1] : last[0];
const bool found = in_range && good && score > nearly_impossible;
for (int t = thread_index; t < T; t += threads) {
  if (!found || t >= T_n) {
    alignments[int64_t(n) * T + t] = BLANK;
    const float of_frame = good ? -infinity : nan;
    scores[int64_t(n) * T + t] = in_range ? (t < T_n ? of_frame : 0.0f) : nan;
  }
}
if (!found || simdgroup > 0) {
  return;
}

// Back through AT_ONCE blocks, in each frame by at most one pair: lane k has
// the moves of the k-th pair before the path's.
constexpr int AT_ONCE = 3;
int i = in_label ? S_n - 1 : S_n;
for (int block = blocks - 1; block >= 0; block -= AT_ONCE) {
  const int from = i;
  const int pair = from - lane;
  uint words[AT_ONCE];
#pragma unroll
  for (int k = 0; k < AT_ONCE; ++k) {
    words[k] = 0;
    if (block >= k && pair >= 0) {
      words[k] = moves[(int64_t(n) * B + block - k) * (S + 1) + pair];
    }
  }
  int label_of_frame = -1; // in lane 8 k + f, its place or that of a blank
#pragma unroll
  for (int k = 0; k < AT_ONCE; ++k) {
    for (int f = FRAMES - 1; f >= 0; --f) {
      if (block >= k && (block - k) * FRAMES + f < T_n) {
        if (lane == k * FRAMES + f && in_label) {
          label_of_frame = i;
        }
        const uint move = metal::simd_broadcast(words[k], from - i) >> (4 * f);
        if (in_label) {
          i -= (move & jump) != 0 ? 1 : 0;
          in_label = (move & jump) != 0 || (move & step) == 0;
        } else if ((move & to_blank) != 0) {
          i -= 1;
          in_label = true;
        }
      }
    }
  }
  const int t = (block - lane / FRAMES) * FRAMES + lane % FRAMES;
  if (lane < AT_ONCE * FRAMES && t >= 0 && t < T_n) {
    int y = BLANK;
    if (label_of_frame >= 0) {
      y = targets[target + label_of_frame * targets_strides[1]];
    }
    float value = float(log_probs[item + y * class_stride + t * frame_stride]);
    if (LOGITS) {
      const int64_t at = (int64_t(n) * T + t) * 2;
      value = (value - float(normalisers[at])) +
          metal::log(float(normalisers[at + 1]));
    }
    alignments[int64_t(n) * T + t] = y;
    scores[int64_t(n) * T + t] = value;
  }
}
