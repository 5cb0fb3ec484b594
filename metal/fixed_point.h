// Log-probabilities as integers, in units of 2^-32 nats. A path's score is
// their sum, which never rounds: equal paths are found equal, and every machine
// finds the same path. The numbers are those of csrc/cpu/viterbi.cpp, bit for
// bit.

// Sums saturate here. All the frames' scores together add less than half of it,
// so that what is impossible once stays below `nearly_impossible`.
constant constexpr int64_t impossible = -(int64_t(1) << 62);
constant constexpr int64_t nearly_impossible = impossible / 2;

METAL_FUNC int64_t greater(int64_t a, int64_t b) {
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

// A score less its frame's greatest. A frame with bad numbers has none that is
// greatest, and its scores only must not add up.
METAL_FUNC int64_t less_greatest(int64_t score, int64_t greatest_score) {
  const int64_t less = greater(score - greatest_score, impossible);
  return less < 0 ? less : 0;
}

// Shuffles move 32 bits.
METAL_FUNC int64_t shuffle_up(int64_t a) {
  const uint low = metal::simd_shuffle_up(uint(a), 1);
  const uint high = metal::simd_shuffle_up(uint(a >> 32), 1);
  return int64_t((uint64_t(high) << 32) | uint64_t(low));
}
