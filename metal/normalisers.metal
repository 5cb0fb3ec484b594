// log-softmax's two numbers for every frame: the greatest logit and 1 / sum of
// exp(logit - greatest). One pass over the logits, one or more simdgroups a
// frame. A frame that holds NaN or +inf, or -inf alone, gets NaN for the second.
//
// in   log_probs       (T, N, C) logits, any strides
//      input_lengths   (N)
// out  normalisers     (N, T, 2); frames past the length stay unwritten
//
// SIMDGROUPS  in a threadgroup
// ROW         simdgroups for one frame: 1, or all of them when C is large

  constexpr int ROWS = SIMDGROUPS / ROW; // frames of a threadgroup
  constexpr int WIDTH = 32 * ROW;
  constexpr int UNROLL = 4;
  const float infinity = metal::numeric_limits<float>::infinity();

  threadgroup float partial_greatest[SIMDGROUPS];
  threadgroup float partial_sum[SIMDGROUPS];

  const int T = log_probs_shape[0];
  const int N = log_probs_shape[1];
  const int C = log_probs_shape[2];
  const int64_t class_stride = log_probs_strides[2];
  const int simdgroup = int(simdgroup_index_in_threadgroup);
  const int lane = int(thread_index_in_simdgroup);

  // Frames in memory order for a contiguous (T, N, C), all simdgroups of a
  // threadgroup the same number of times.
  const int64_t stride = int64_t(threadgroups_per_grid.x) * ROWS;
  for (int64_t begin = int64_t(threadgroup_position_in_grid.x) * ROWS;
       begin < int64_t(T) * N;
       begin += stride) {
  const int64_t row = begin + simdgroup / ROW;
  const int t = int(row / N);
  const int n = int(row - int64_t(t) * N);
  const bool used = t < T && t < input_lengths[n * input_lengths_strides[0]];

  float greatest = -infinity;
  float total = 0.0f;
  bool finite = true;
  if (used) {
    const int64_t start = t * log_probs_strides[0] + n * log_probs_strides[1];
    for (int c = (simdgroup % ROW) * 32 + lane; c < C; c += WIDTH * UNROLL) {
      float x[UNROLL];
      for (int i = 0; i < UNROLL; ++i) {
        const int at = c + i * WIDTH;
        x[i] = at < C ? float(log_probs[start + at * class_stride]) : -infinity;
      }
      float highest = greatest;
      for (int i = 0; i < UNROLL; ++i) {
        finite = finite && x[i] < infinity;
        highest = metal::max(highest, x[i]);
      }
      if (highest > greatest) {
        total *= plain_exp(greatest - highest);
        greatest = highest;
      }
      if (greatest > -infinity) {
        for (int i = 0; i < UNROLL; ++i) {
          total += plain_exp(x[i] - greatest);
        }
      }
    }
  }

  // The lanes' parts, then the simdgroups', in a fixed order.
  float highest = metal::simd_max(greatest);
  total = greatest > -infinity ? total * plain_exp(greatest - highest) : 0.0f;
  total = sum_of_lanes(total);
  finite = metal::simd_all(finite);
  if (ROW > 1) {
    if (lane == 0) {
      partial_greatest[simdgroup] = finite ? highest : infinity;
      partial_sum[simdgroup] = total;
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    highest = partial_greatest[0];
    for (int i = 1; i < ROW; ++i) {
      highest = metal::max(highest, partial_greatest[i]);
    }
    finite = highest < infinity;
    total = 0.0f;
    for (int i = 0; i < ROW; ++i) {
      const float part = partial_greatest[i];
      total += part > -infinity && finite
          ? partial_sum[i] * plain_exp(part - highest)
          : 0.0f;
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
  }
  if (used && lane == 0 && simdgroup % ROW == 0) {
    const bool good = finite && highest > -infinity;
    const int64_t at = (int64_t(n) * T + t) * 2;
    normalisers[at] = good ? highest : 0.0f;
    normalisers[at + 1] =
        good ? 1.0f / total : metal::numeric_limits<float>::quiet_NaN();
  }
  }
