#include "lattice/best_path.h"

#include <cmath>
#include <limits>

#include "lattice/element.h"
#include "lattice/scores.h"
#include "lattice/softmax.h"
#include "simd/blocks.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

namespace {

// A class, and its log-probability or NaN.
struct Best {
  int32_t index;
  double log_prob;
};

// The first of x (C) that equals `value`; 0 if none does.
template <typename Real>
int32_t first_equal(const Real* x, int64_t C, Real value) {
  constexpr int64_t stride = 8 * block_size<Real>;
  int64_t c = 0;
  for (; c + stride <= C; c += stride) {
    auto equal = load_block(x + c) == value;
    for (int j = 1; j < 8; ++j) {
      equal |= load_block(x + c + j * block_size<Real>) == value;
    }
    if (any(equal)) {
      break;
    }
  }
  for (; c < C; ++c) {
    if (x[c] == value) {
      return c;
    }
  }
  return 0;
}

// `next`, the frame that will be read next, is fetched meanwhile.
template <typename Real>
bool has_nan(const Real* x, int64_t C, StoredFrame next) {
  const auto infinity = filled(std::numeric_limits<Real>::infinity());
  auto ordered = -infinity < infinity; // everywhere
  for_each_block(x, C, [&](Block<Real> block, int64_t c, int64_t) {
    next.fetch(c);
    ordered &= block <= infinity;
  });
  return any(~ordered);
}

template <typename Real>
Best best_of_log_probs(const Real* x, int64_t C, StoredFrame next) {
  bool valid = !has_nan(x, C, next);
  Real max = greatest(x, C);
  valid &= max <= Real(most_log_prob);
  return {
      first_equal(x, C, max),
      valid ? double(max) : std::numeric_limits<double>::quiet_NaN()};
}

template <typename Real>
Best best_of_logits(const Real* x, int64_t C, StoredFrame next) {
  auto normaliser = compute_normaliser(x, C, next);
  Real max = normaliser.max;
  bool valid = normaliser.rest < std::numeric_limits<double>::infinity();
  return {
      first_equal(x, C, max),
      valid ? -std::log1p(normaliser.rest)
            : std::numeric_limits<double>::quiet_NaN()};
}

template <typename In>
void find(
    const Sequence& sequence,
    int32_t* classes,
    void* log_probs,
    std::span<std::byte> memory) {
  auto* out = static_cast<typename Computing<In>::Real*>(log_probs);
  Workspace workspace(memory);
  Scores scores(sequence, element_type<In>, workspace);
  for (int t = 0; t < scores.T; ++t) {
    auto x = scores.frame(t);
    // What lies after it in memory is read next.
    StoredFrame next = scores.stored(t);
    next.begin += scores.C * next.element_bytes;
    Best best = sequence.with_logits ? best_of_logits(x, scores.C, next)
                                     : best_of_log_probs(x, scores.C, next);
    classes[t] = best.index;
    out[t] = best.log_prob;
  }
}

template <typename In>
size_t workspace_bytes(int classes) {
  Sequence sequence = {};
  sequence.classes = classes;
  Workspace measured;
  Scores scores(sequence, element_type<In>, measured);
  return measured.bytes();
}

template <typename In>
constexpr BestPath best_path_for = {find<In>, workspace_bytes<In>};

} // namespace

extern const BestPath best_path_table[] = {
    best_path_for<Half>,
    best_path_for<BFloat>,
    best_path_for<float>,
    best_path_for<double>};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
