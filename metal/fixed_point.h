// Log-probabilities as 64-bit integers, in units of 2^-32 nats. A path's score
// is their sum, which is exact: ties are found as ties, and every GPU and the
// CPU (csrc/lattice/viterbi.cpp and viterbi_pass.h, with the same constants)
// find the same path.

// Sums saturate at `impossible`. The scores of all frames add up to less than
// half of it, so that an impossible path stays below `nearly_impossible`.
constant constexpr int64_t impossible = -(int64_t(1) << 62);
constant constexpr int64_t nearly_impossible = impossible / 2;

METAL_FUNC int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}

// x rounded towards zero, at most `greatest` units. NaN becomes impossible.
METAL_FUNC int64_t fixed_point(float x, float greatest) {
  const float least = -4611686018427387904.0f; // -2^62
  float scaled = x * 4294967296.0f;
  scaled = scaled > least ? scaled : least;
  scaled = scaled < greatest ? scaled : greatest;
  return int64_t(scaled);
}

// The score minus the greatest score of its frame, in [impossible, 0]. (In a
// frame with invalid scores the difference could be positive.)
METAL_FUNC int64_t relative_score(int64_t score, int64_t greatest_score) {
  const int64_t difference = larger(score - greatest_score, impossible);
  return difference < 0 ? difference : 0;
}

// The value of the lane below. Metal's shuffles move 32 bits.
METAL_FUNC int64_t shuffle_up(int64_t a) {
  const uint low = metal::simd_shuffle_up(uint(a), 1);
  const uint high = metal::simd_shuffle_up(uint(a >> 32), 1);
  return int64_t((uint64_t(high) << 32) | uint64_t(low));
}
