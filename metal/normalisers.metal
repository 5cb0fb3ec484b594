// log-softmax's two numbers for every frame: the greatest logit and 1 / sum of
// exp(logit - greatest). One pass over the logits. A frame that holds NaN or
// +inf, or -inf alone, gets NaN for the second.
//
// in   log_probs       (T, N, C) logits, any strides
//      input_lengths   (N)
// out  normalisers     (N, T, 2); frames past the length stay unwritten
//
// THREADS         in a threadgroup
// FRAME_THREADS   threads for one frame: up to 32, or all

#include "extended.h"

constexpr int FRAMES = THREADS / FRAME_THREADS; // of a threadgroup
constexpr int LANES = FRAME_THREADS < 32 ? FRAME_THREADS : 32;
constexpr int UNROLL = 8;
const float infinity = metal::numeric_limits<float>::infinity();

threadgroup float partial_greatest[THREADS / 32];
threadgroup float partial_total[THREADS / 32];

const int T = log_probs_shape[0];
const int N = log_probs_shape[1];
const int C = log_probs_shape[2];
const int64_t class_stride = log_probs_strides[2];
const int thread_index = int(thread_position_in_threadgroup.x);
const int member = thread_index % FRAME_THREADS;

// Frames in memory order for a contiguous (T, N, C), all threads of a
// threadgroup the same number of times.
const uint all = uint(T) * uint(N);
for (uint begin = threadgroup_position_in_grid.x * FRAMES; begin < all;
     begin += threadgroups_per_grid.x * FRAMES) {
  const uint frame = begin + uint(thread_index / FRAME_THREADS);
  const int t = int(frame / uint(N));
  const int n = int(frame % uint(N));
  const bool used =
      frame < all && t < input_lengths[n * input_lengths_strides[0]];

  // NaN and +inf make the total NaN, which it stays.
  float greatest = -infinity;
  float total = 0.0f; // of exp(logit - greatest)
  if (used) {
    int64_t at = t * log_probs_strides[0] + n * log_probs_strides[1] +
        member * class_stride;
    for (int c = member; c < C; c += FRAME_THREADS * UNROLL) {
      float x[UNROLL];
#pragma unroll
      for (int i = 0; i < UNROLL; ++i) {
        x[i] = -infinity;
        if (c + i * FRAME_THREADS < C) {
          x[i] = float(log_probs[at]);
        }
        at += FRAME_THREADS * class_stride;
      }
      float highest = greatest;
#pragma unroll
      for (int i = 0; i < UNROLL; ++i) {
        highest = metal::max(highest, x[i]);
      }
      if (!(highest <= greatest)) { // greater or NaN
        total *= share(greatest - highest);
        greatest = highest;
      }
      if (greatest > -infinity) {
#pragma unroll
        for (int i = 0; i < UNROLL; ++i) {
          total += share(x[i] - greatest);
        }
      }
    }
  }

  // The lanes' parts, then the simdgroups', in a fixed order.
  float highest = greatest;
  for (int step = LANES / 2; step > 0; step /= 2) {
    highest = metal::max(highest, metal::simd_shuffle_xor(highest, step));
  }
  total *= share(greatest - highest);
  for (int step = LANES / 2; step > 0; step /= 2) {
    total += metal::simd_shuffle_xor(total, step);
  }
  if (FRAME_THREADS > 32) {
    if (thread_index % 32 == 0) {
      partial_greatest[thread_index / 32] = highest;
      partial_total[thread_index / 32] = total;
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    for (int i = 0; i < FRAME_THREADS / 32; ++i) {
      highest = metal::max(highest, partial_greatest[i]);
    }
    total = 0.0f;
    for (int i = 0; i < FRAME_THREADS / 32; ++i) {
      const float part = partial_total[i];
      total +=
          part == 0.0f ? 0.0f : part * share(partial_greatest[i] - highest);
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
  }

  if (used && member == 0) {
    const bool good = total > 0.0f && highest < infinity;
    const int64_t at = (int64_t(n) * T + t) * 2;
    normalisers[at] = good ? highest : 0.0f;
    normalisers[at + 1] =
        good ? 1.0f / total : metal::numeric_limits<float>::quiet_NaN();
  }
}
