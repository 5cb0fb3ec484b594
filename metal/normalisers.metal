// The normaliser of log-softmax for every frame: the greatest logit, and the
// sum of exp(logit - greatest) over the others, in one pass over the logits. In
// a frame that has NaN or +infinity, or only -infinity, the second is NaN.
//
// in   log_probs       (T, N, C) logits, any strides
//      input_lengths   (N)
// out  normalisers     (N, T, 2); frames after the input length are not written
//
// THREADS         of a threadgroup
// FRAME_THREADS   threads per frame: a power of two up to 32, or THREADS

#include "softmax_sum.h"

constexpr int FRAMES = THREADS / FRAME_THREADS; // of a threadgroup at a time
constexpr int LANES = FRAME_THREADS < 32 ? FRAME_THREADS : 32;

threadgroup float greatests[THREADS / 32]; // of each simdgroup
threadgroup float rests[THREADS / 32];

const int T = log_probs_shape[0];
const int N = log_probs_shape[1];
const int C = log_probs_shape[2];
const int thread_index = int(thread_position_in_threadgroup.x);
const int member = thread_index % FRAME_THREADS; // of the frame's threads

// Frames come in the order of memory of a contiguous (T, N, C). All threads of
// a threadgroup run the same number of iterations, so that all meet at the
// barriers. The host refuses so many frames that `begin` would overflow.
const uint all_frames = uint(T) * uint(N);
for (uint begin = threadgroup_position_in_grid.x * FRAMES; begin < all_frames;
     begin += threadgroups_per_grid.x * FRAMES) {
  const uint frame = begin + uint(thread_index / FRAME_THREADS);
  const int t = int(frame / uint(N));
  const int n = int(frame % uint(N));
  const bool in_sequence =
      frame < all_frames && t < input_lengths[n * input_lengths_strides[0]];

  SoftmaxSum sum = no_logits();
  if (in_sequence) {
    sum = sum_of_thread(
        log_probs + t * log_probs_strides[0] + n * log_probs_strides[1],
        log_probs_strides[2],
        C,
        member,
        FRAME_THREADS);
  }
  sum = sum_of_lanes<LANES>(sum);
  if (FRAME_THREADS > 32) {
    if (thread_index % 32 == 0) {
      greatests[thread_index / 32] = sum.greatest;
      rests[thread_index / 32] = sum.rest;
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    sum = sum_of_simdgroups(greatests, rests, FRAME_THREADS / 32);
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
  }

  if (in_sequence && member == 0) {
    const bool valid = sum.is_valid();
    const int64_t at = (int64_t(n) * T + t) * 2;
    normalisers[at] = valid ? sum.greatest : 0.0f;
    normalisers[at + 1] =
        valid ? sum.rest : metal::numeric_limits<float>::quiet_NaN();
  }
}
