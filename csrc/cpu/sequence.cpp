// The forward-backward recursion of one sequence (Graves et al. 2006, section
// 4.1), in extended-range numbers.
//
// A target of S labels makes a lattice of two rows: label[i], and blank[i], the
// blank after it (i = 0..S-1). The blank before all labels is blank[-1]. The
// loops run over i, for both rows at once, and vectorise.
//
// This file is compiled once for each instruction set, with MLX_CTC_ISA naming
// the set. Everything but the table at the end has internal linkage, so that no
// machine meets an instruction it does not have.
#include "cpu/sequence.h"

#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "cpu/blocks.h"
#include "cpu/element.h"
#include "cpu/exponential.h"
#include "cpu/extended.h"
#include "cpu/softmax.h"

// The rows that a loop reads and writes never overlap.
#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace {

using mlx_ctc::cpu::Saved;
using mlx_ctc::cpu::Sequence;

// Loops run over whole blocks of states. What a row holds past the last label
// is zero, and stays zero.
//
// A row has a block before index 0 and one after the last, for the neighbours
// of the states at its ends.
constexpr int64_t row_pitch(int64_t target_length) {
  return lanes + round_up(target_length) + lanes;
}

template <typename Real>
struct Row {
  Real* m;
  Int<Real>* e;

  Extended<Real> operator[](int64_t i) const {
    return {m[i], e[i]};
  }

  void set(int64_t i, Extended<Real> a) const {
    m[i] = a.m;
    e[i] = a.e;
  }

  void clear(int64_t begin, int64_t end) const {
    for (int64_t i = begin; i < end; ++i) {
      set(i, zero<Real>());
    }
  }
};

template <typename Real>
struct States {
  Row<Real> blank;
  Row<Real> label;

  void clear(int64_t begin, int64_t end) const {
    blank.clear(begin, end);
    label.clear(begin, end);
  }
};

// The labels, and blanks after them, that an alignment can be at in one frame:
// each frame adds at most one label, after the start and before the end. The
// loops take whole blocks around them; whatever else is in those has no path to
// the start, or none to the end, and neither has what they lead to.
struct Band {
  int64_t begin;
  int64_t end;

  int64_t first_block() const {
    return round_down(begin);
  }

  int64_t last_block() const {
    return round_up(end);
  }
};

class Workspace {
 public:
  explicit Workspace(std::byte* begin) : next_(begin) {}

  template <typename T>
  T* take(int64_t count) {
    auto* taken = reinterpret_cast<T*>(next_);
    next_ += (count * sizeof(T) + 63) / 64 * 64;
    return taken;
  }

  template <typename Real>
  Row<Real> take_row(int64_t pitch) {
    return {take<Real>(pitch) + lanes, take<Int<Real>>(pitch) + lanes};
  }

  template <typename Real>
  States<Real> take_states(int64_t pitch) {
    return {take_row<Real>(pitch), take_row<Real>(pitch)};
  }

 private:
  std::byte* next_;
};

// alpha(t) from alpha(t - 1) and the emissions of frame t, equation 6.
template <typename Real>
void alpha_step(
    Band band,
    const Int<Real>* skip,
    States<Real> previous,
    Extended<Real> blank,
    Row<Real> label,
    States<Real> next) {
  int64_t begin = band.first_block();
  int64_t end = band.last_block();
  next.clear(begin - 1, begin);
  next.clear(end, end + lanes);
  if (begin == 0) {
    next.blank.set(-1, normalised(previous.blank[-1] * blank));
  }
  INDEPENDENT
  for (int64_t i = begin; i < end; ++i) {
    auto stay = previous.label[i];
    auto step = previous.blank[i - 1];
    auto jump = previous.label[i - 1];
    jump.e += skip[i];
    next.blank.set(i, normalised((previous.blank[i] + stay) * blank));
    next.label.set(i, normalised(sum(stay, step, jump) * label[i]));
  }
}

// One frame back in time, from beta(t + 1) p(t + 1) to beta(t) p(t), where
// beta(t) excludes frame t's own emission (equation 10, one emission less, so
// that gamma = alpha beta / Z needs no division by it).
template <typename Real>
void beta_step(
    Band band,
    const Int<Real>* skip,
    States<Real> alpha,
    Extended<Real> blank,
    Row<Real> label,
    Extended<Real> inverse_z,
    States<Real> weighted,
    States<Real> next,
    Real* gamma_blank,
    Real* gamma_label) {
  auto posterior = [&](Extended<Real> alpha, Extended<Real> beta) {
    auto gamma = alpha * beta * inverse_z;
    return gamma.m * power_of_two<Real>(gamma.e);
  };
  int64_t begin = band.first_block();
  int64_t end = band.last_block();
  next.clear(begin - lanes, begin);
  gamma_blank[-1] = 0;
  if (begin == 0) {
    auto beta_blank = weighted.blank[-1] + weighted.label[0];
    gamma_blank[-1] = posterior(alpha.blank[-1], beta_blank);
    next.blank.set(-1, normalised(beta_blank * blank));
  }
  INDEPENDENT
  for (int64_t i = begin; i < end; ++i) {
    auto stay = weighted.label[i];
    auto step = weighted.blank[i];
    auto jump = weighted.label[i + 1];
    auto beta_blank = step + jump;
    jump.e += skip[i + 1];
    auto beta_label = sum(stay, step, jump);
    gamma_blank[i] = posterior(alpha.blank[i], beta_blank);
    gamma_label[i] = posterior(alpha.label[i], beta_label);
    next.blank.set(i, normalised(beta_blank * blank));
    next.label.set(i, normalised(beta_label * label[i]));
  }
}

// The lattice of one sequence, over memory from the workspace.
template <typename In>
class Lattice {
 public:
  using Real = typename Computing<In>::Real;

  Lattice(const Sequence& sequence, const Saved& saved, std::byte* workspace)
      : sequence_(sequence),
        saved_(saved),
        workspace_(workspace),
        S_(sequence.target_length),
        pitch_(row_pitch(S_)) {
    offsets_ = workspace_.take<int64_t>(pitch_);
    skip_ = workspace_.take<Int<Real>>(pitch_);
    scores_ = workspace_.take<Real>(pitch_);
    row_ = workspace_.take<Real>(sequence.classes);
    const int32_t* labels = sequence.labels;
    for (int64_t i = 0; i < S_; ++i) {
      offsets_[i] = labels[i] * sequence.class_stride;
      // A blank between equal labels cannot be skipped.
      bool skippable = i > 0 && labels[i] != labels[i - 1];
      skip_[i] = skippable ? 0 : zero_exponent;
      repeats_ += i > 0 && !skippable;
    }
    for (int64_t i = S_; i < round_up(S_) + lanes; ++i) {
      skip_[i] = zero_exponent;
    }
  }

  double loss() {
    if (!feasible()) {
      return std::numeric_limits<double>::infinity();
    }
    States<Real> alpha = workspace_.take_states<Real>(pitch_);
    States<Real> next = workspace_.take_states<Real>(pitch_);
    Row<Real> label = workspace_.take_row<Real>(pitch_);
    start(alpha);
    // The lattice runs on exp(x - max); the sums that divide it are multiplied
    // up here, in double.
    Extended<double> normaliser_product = {1.0, 0};
    for (int t = 0; t < sequence_.frames; ++t) {
      if (t > 0 && t % saved_.interval == 0) {
        copy(alpha, checkpoint(t), band(t - 1));
      }
      if (sequence_.with_logits) {
        const In* next = scores(smaller(t + 1, sequence_.frames - 1));
        auto z = normaliser(frame(t), next, sequence_.classes);
        normalisers()[t] = z;
        normaliser_product =
            normalised(normaliser_product * Extended<double>{z.sum, 0});
      }
      valid_ &= is_valid(t);
      Extended<Real> blank = emit(t, label);
      alpha_step(band(t), skip_, alpha, blank, label, next);
      std::swap(alpha, next);
    }
    Extended<Real> z = evidence(alpha);
    if (!valid_) {
      return std::numeric_limits<double>::quiet_NaN();
    }
    if (z.e < nearly_zero) {
      return std::numeric_limits<double>::infinity();
    }
    double log2_z = std::log2(double(z.m) / normaliser_product.m) +
        double(z.e - normaliser_product.e);
    return -log2_z * ln_2;
  }

  void gradient(Real cotangent, In* out, int64_t out_stride) {
    int frames = sequence_.frames;
    int interval = smaller(saved_.interval, frames);
    gamma_blank_ = workspace_.take<Real>(pitch_) + lanes;
    gamma_label_ = workspace_.take<Real>(pitch_);
    States<Real> weighted = workspace_.take_states<Real>(pitch_);
    States<Real> next = workspace_.take_states<Real>(pitch_);
    States<Real> entry = workspace_.take_states<Real>(pitch_);
    auto* alpha = workspace_.take<States<Real>>(interval);
    auto* label = workspace_.take<Row<Real>>(interval);
    auto* blank = workspace_.take<Extended<Real>>(interval);
    for (int j = 0; j < interval; ++j) {
      alpha[j] = workspace_.take_states<Real>(pitch_);
      label[j] = workspace_.take_row<Real>(pitch_);
    }

    weighted.clear(-lanes, round_up(S_) + lanes);
    next.clear(-lanes, round_up(S_) + lanes);
    // From here a step back leads to the last blank and to the last label.
    weighted.blank.set(S_ - 1, {Real(1), 0});
    Extended<Real> inverse_z = zero<Real>();
    int last = (frames - 1) / interval * interval;
    for (int begin = last; begin >= 0; begin -= interval) {
      int end = smaller(begin + interval, frames);
      if (begin == 0) {
        start(entry);
      } else {
        Band b = band(begin - 1);
        entry.clear(b.first_block() - 1, b.last_block() + lanes);
        copy(checkpoint(begin), entry, b);
      }
      for (int t = begin; t < end; ++t) {
        int j = t - begin;
        blank[j] = emit(t, label[j]);
        const States<Real>& previous = j == 0 ? entry : alpha[j - 1];
        alpha_step(band(t), skip_, previous, blank[j], label[j], alpha[j]);
      }
      if (begin == last) {
        Extended<Real> z = evidence(alpha[end - 1 - begin]);
        inverse_z = {1 / z.m, -z.e};
      }
      for (int t = end - 1; t >= begin; --t) {
        int j = t - begin;
        beta_step(
            band(t),
            skip_,
            alpha[j],
            blank[j],
            label[j],
            inverse_z,
            weighted,
            next,
            gamma_blank_,
            gamma_label_);
        std::swap(weighted, next);
        write_gradient(t, cotangent, out + t * out_stride);
      }
    }
  }

 private:
  bool feasible() const {
    return S_ + repeats_ <= sequence_.frames;
  }

  Band band(int t) const {
    int64_t left = sequence_.frames - t;
    return {larger<int64_t>(0, S_ - left), smaller<int64_t>(S_, t + 1)};
  }

  // alpha before the first frame: all probability on the first blank.
  void start(States<Real> alpha) const {
    alpha.clear(-1, lanes);
    alpha.blank.set(-1, {Real(1), 0});
  }

  // Z: an alignment ends in the last label or the blank after it.
  Extended<Real> evidence(States<Real> alpha) const {
    return normalised(alpha.blank[S_ - 1] + alpha.label[S_ - 1]);
  }

  const In* scores(int t) const {
    return static_cast<const In*>(sequence_.log_probs) +
        t * sequence_.frame_stride;
  }

  // Frame t's scores side by side as Real, in place where they already are.
  const Real* frame(int t) {
    const In* x = scores(t);
    int64_t stride = sequence_.class_stride;
    if constexpr (std::is_same_v<In, Real>) {
      if (stride == 1) {
        return x;
      }
    }
    if (stride == 1) {
      for (int64_t c = 0; c < sequence_.classes; ++c) {
        row_[c] = number(x[c]);
      }
    } else {
      for (int64_t c = 0; c < sequence_.classes; ++c) {
        row_[c] = number(x[c * stride]);
      }
    }
    return row_;
  }

  Normaliser* normalisers() const {
    return static_cast<Normaliser*>(saved_.normalisers);
  }

  // Whether frame t has a probability for the blank and every label, also where
  // no alignment passes. One comparison finds both NaN and +inf.
  bool is_valid(int t) const {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    if (sequence_.with_logits) {
      return normalisers()[t].sum < infinity;
    }
    const In* x = scores(t);
    int valid = number(x[sequence_.blank * sequence_.class_stride]) < infinity;
    for (int64_t i = 0; i < S_; ++i) {
      valid &= number(x[offsets_[i]]) < infinity;
    }
    return valid;
  }

  // The probabilities that frame t gives the labels, and the blank's; of
  // logits, as multiples of the greatest.
  Extended<Real> emit(int t, Row<Real> label) {
    const In* x = scores(t);
    Band b = band(t);
    int64_t begin = b.first_block();
    int64_t end = b.last_block();
    int64_t known = smaller(end, S_);
    for (int64_t i = begin; i < known; ++i) {
      scores_[i] = number(x[offsets_[i]]);
    }
    for (int64_t i = known; i < end; ++i) {
      scores_[i] = -std::numeric_limits<Real>::infinity();
    }
    Real blank = number(x[sequence_.blank * sequence_.class_stride]);

    double log2_scale = 0;
    if (sequence_.with_logits) {
      log2_scale = normalisers()[t].max * log2_e;
    }
    INDEPENDENT
    for (int64_t i = begin; i < end; ++i) {
      label.set(i, extended_exp(scores_[i], log2_scale));
    }
    return extended_exp(blank, log2_scale);
  }

  // cotangent * (softmax - gamma), gamma summed over the states of a class.
  void write_gradient(int t, Real cotangent, In* out) {
    int64_t C = sequence_.classes;
    const Real* x = frame(t);
    Real* row;
    if constexpr (std::is_same_v<In, Real>) {
      row = out;
    } else {
      row = row_;
    }
    Normaliser z = {0, 1};
    if (sequence_.with_logits) {
      z = normalisers()[t];
    }
    const In* next = scores(larger(t - 1, 0));
    scaled_exp(x, next, C, Real(z.max), Real(cotangent / z.sum), row);

    Band b = band(t);
    int64_t begin = b.first_block();
    int64_t end = b.last_block();
    Real blanks = gamma_blank_[-1] + sum(gamma_blank_, begin, end);
    // A frame's posteriors sum to 1. Dividing by their sum takes out what
    // alpha, beta and Z have gathered in rounding over the whole sequence.
    Real scale = cotangent / (blanks + sum(gamma_label_, begin, end));
    row[sequence_.blank] -= scale * blanks;
    for (int64_t i = b.begin; i < b.end; ++i) {
      row[sequence_.labels[i]] -= scale * gamma_label_[i];
    }
    if constexpr (!std::is_same_v<In, Real>) {
      for (int64_t c = 0; c < C; ++c) {
        assign(out[c], row[c]);
      }
    }
  }

  States<Real> checkpoint(int t) const {
    int64_t first = (t / saved_.interval - 1) * 2 * saved_.pitch + 1;
    Real* m = static_cast<Real*>(saved_.mantissas) + first;
    auto* e = static_cast<Int<Real>*>(saved_.exponents) + first;
    return {{m, e}, {m + saved_.pitch, e + saved_.pitch}};
  }

  void copy(States<Real> from, States<Real> to, Band b) const {
    for (int64_t i = b.begin > 0 ? b.begin : -1; i < b.end; ++i) {
      to.blank.set(i, from.blank[i]);
      to.label.set(i, from.label[i]);
    }
  }

  const Sequence& sequence_;
  const Saved& saved_;
  Workspace workspace_;
  int64_t S_;
  int64_t pitch_;
  int64_t repeats_ = 0;
  bool valid_ = true;
  int64_t* offsets_; // (S) of the labels' scores in a frame, in elements
  Int<Real>* skip_; // (S) exponent of what may jump to label i
  Real* scores_; // (S) of the labels in one frame
  Real* row_; // (C) one frame, where it cannot be used in place
  Real* gamma_blank_ = nullptr; // (S), and index -1
  Real* gamma_label_ = nullptr; // (S)
};

template <typename In>
double
loss(const Sequence& sequence, const Saved& saved, std::byte* workspace) {
  return Lattice<In>(sequence, saved, workspace).loss();
}

template <typename In>
void gradient(
    const Sequence& sequence,
    const Saved& saved,
    double cotangent,
    void* gradient,
    int64_t gradient_stride,
    std::byte* workspace) {
  Lattice<In>(sequence, saved, workspace)
      .gradient(cotangent, static_cast<In*>(gradient), gradient_stride);
}

// An upper bound: the gradient's rows of one interval, and of everything else
// the lattice takes no more than a dozen rows, each begun on a cache line.
template <typename In>
size_t workspace_bytes(int classes, int max_target_length, int interval) {
  using Real = typename Computing<In>::Real;
  size_t row = row_pitch(max_target_length) * 2 * sizeof(Real) + 128;
  size_t frame = 3 * row + sizeof(States<Real>) + 2 * sizeof(Row<Real>);
  return interval * frame + 12 * row + classes * sizeof(Real) + 1024;
}

template <typename In>
constexpr mlx_ctc::cpu::Kernels kernels_for = {
    loss<In>,
    gradient<In>,
    workspace_bytes<In>};

} // namespace

namespace mlx_ctc::cpu::MLX_CTC_ISA {

extern const Kernels table[] = {
    kernels_for<Half>,
    kernels_for<BFloat>,
    kernels_for<float>,
    kernels_for<double>};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
