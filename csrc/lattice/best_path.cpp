#include "lattice/best_path.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

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

constexpr Best no_best = {0, std::numeric_limits<double>::quiet_NaN()};

// A frame is read in strides of so many blocks.
template <typename Real>
constexpr int64_t stride_size = 8 * block_size<Real>;

// Fetches what lies a page further. The processor fetches ahead by itself, but
// not beyond a page.
inline void fetch_next_page(const void* x) {
  constexpr int64_t page_bytes = 4096;
  __builtin_prefetch(static_cast<const char*>(x) + page_bytes);
}

// The greatest score of each lane, and the first stride that has it.
template <typename Real>
class Lanes {
 public:
  // Reads the next stride, which begins with x[c].
  void read(const Real* x, int64_t c, int64_t count) {
    Block<Real> of_stride = filled(-std::numeric_limits<Real>::infinity());
    for_each_block(x + c, count, [&](Block<Real> block, int64_t i, int64_t) {
      fetch_next_page(x + c + i);
      sum_ += block;
      of_stride = larger(block, of_stride);
    });
    auto is_greater = of_stride > max_;
    max_ = is_greater ? of_stride : max_;
    begin_ = is_greater ? filled(Index(c)) : begin_;
  }

  Real max() const {
    return greatest<Real>(max_);
  }

  // The beginning of the first stride that has `max`.
  int64_t begin_of(Real max) const {
    auto none = filled(std::numeric_limits<Index>::max());
    return least<Index>(max_ == max ? begin_ : none);
  }

  // True also if there is +inf beside -inf.
  bool has_nan() const {
    return any(sum_ != sum_);
  }

 private:
  using Index = std::conditional_t<sizeof(Real) == 4, int32_t, int64_t>;

  Block<Real> max_ = filled(-std::numeric_limits<Real>::infinity());
  Block<Index> begin_ = {};
  Block<Real> sum_ = {};
};

// The first of the stride x (count) that equals `value`, which one does.
template <typename Real>
int64_t first_equal(const Real* x, int64_t count, Real value) {
  uint64_t found[2] = {}; // a bit for each of at most 128
  for_each_block(x, count, [&](Block<Real> block, int64_t c, int64_t) {
    found[c / 64] |= uint64_t(bits_of(block == value)) << c % 64;
  });
  int64_t zeros = std::countr_zero(found[0]); // 64 if there is none
  return zeros + zeros / 64 * std::countr_zero(found[1]);
}

template <typename Real>
struct Greatest {
  Real score;
  int32_t index; // the first that has it
  bool has_nan; // whether x does, or has +inf beside -inf
};

// Of x (C), in one pass. No branch depends on the scores: a mispredicted one
// would wait for memory.
template <typename Real>
Greatest<Real> first_greatest(const Real* x, int64_t C) {
  constexpr int64_t stride = stride_size<Real>;
  Lanes<Real> lanes;
  int64_t c = 0;
  for (; c + stride <= C; c += stride) {
    lanes.read(x, c, stride);
  }
  if (c < C) {
    lanes.read(x, c, C - c);
  }
  Real max = lanes.max();
  if (lanes.has_nan()) {
    return {max, 0, true};
  }
  int64_t begin = C > stride ? lanes.begin_of(max) : 0;
  int64_t index = first_equal(x + begin, smaller(C - begin, stride), max);
  return {max, int32_t(begin + index), false};
}

template <typename Real>
Best best_of_log_probs(const Real* x, int64_t C) {
  auto [max, index, has_nan] = first_greatest(x, C);
  bool valid = !has_nan && max <= Real(most_log_prob);
  return valid ? Best{index, max} : no_best;
}

// `next`, the frame that will be read next, is fetched meanwhile.
template <typename Real>
Best best_of_logits(const Real* x, int64_t C, StoredFrame next) {
  auto normaliser = compute_normaliser(x, C, next);
  bool valid = normaliser.rest < std::numeric_limits<double>::infinity();
  return valid ? Best{first_greatest(x, C).index, -std::log1p(normaliser.rest)}
               : no_best;
}

template <typename In>
void find(
    const Sequence& sequence,
    int32_t* classes,
    void* log_probs,
    int64_t stride,
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
                                     : best_of_log_probs(x, scores.C);
    classes[t * stride] = best.index;
    out[t * stride] = best.log_prob;
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
