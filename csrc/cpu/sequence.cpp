// The forward-backward recursion of one sequence (Graves et al. 2006, section
// 4.1), in extended-range numbers.
//
// A target of S labels makes a lattice of two rows: blank[i], the blank before
// label i (i = 0..S, the last one after all labels), and label[i] (i = 0..S-1).
// The loops run over i, for both rows at once, and vectorise.
//
// This file is compiled once for each instruction set, with MLX_CTC_ISA naming
// the set. Everything but the table at the end has internal linkage, so that no
// machine meets an instruction it does not have.
#include "cpu/sequence.h"

#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "cpu/element.h"
#include "cpu/exponential.h"
#include "cpu/extended.h"

// The rows that a loop reads and writes never overlap.
#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace {

using mlx_ctc::cpu::Saved;
using mlx_ctc::cpu::Sequence;

// Rows begin on a cache line, with as much room before index 0 for index -1.
constexpr int64_t lanes = 16;

constexpr int64_t row_pitch(int64_t target_length) {
  return lanes + (target_length + 2 + lanes - 1) / lanes * lanes;
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
};

template <typename Real>
struct States {
  Row<Real> blank;
  Row<Real> label;
};

// The states from which frame t can still be part of an alignment: at most one
// new label a frame from the start, and from the end.
struct Band {
  int64_t begin;
  int64_t end;
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
    Row<Real> row{take<Real>(pitch) + lanes, take<Int<Real>>(pitch) + lanes};
    row.set(-1, zero<Real>());
    return row;
  }

  template <typename Real>
  States<Real> take_states(int64_t pitch) {
    return {take_row<Real>(pitch), take_row<Real>(pitch)};
  }

  std::byte* next() const {
    return next_;
  }

 private:
  std::byte* next_;
};

// The greatest logit of a frame and the sum of exp(x - it).
template <typename Real>
struct Normaliser {
  Real max;
  Real sum;

  double log2() const {
    return double(max) * log2_e + std::log2(double(sum));
  }
};

// `lanes` partial results side by side: a fixed order that vectorises.
template <typename Real>
Normaliser<Real> normaliser(const Real* x, int64_t C) {
  Real partial[lanes];
  for (int64_t j = 0; j < lanes; ++j) {
    partial[j] = -std::numeric_limits<Real>::infinity();
  }
  int64_t whole = C - C % lanes;
  for (int64_t c = 0; c < whole; c += lanes) {
    for (int64_t j = 0; j < lanes; ++j) {
      partial[j] = larger(x[c + j], partial[j]);
    }
  }
  for (int64_t c = whole; c < C; ++c) {
    partial[c - whole] = larger(x[c], partial[c - whole]);
  }
  Real max = partial[0];
  for (int64_t j = 1; j < lanes; ++j) {
    max = larger(max, partial[j]);
  }

  for (int64_t j = 0; j < lanes; ++j) {
    partial[j] = 0;
  }
  for (int64_t c = 0; c < whole; c += lanes) {
    for (int64_t j = 0; j < lanes; ++j) {
      partial[j] += ordinary_exp(x[c + j] - max);
    }
  }
  for (int64_t c = whole; c < C; ++c) {
    partial[c - whole] += ordinary_exp(x[c] - max);
  }
  Real sum = 0;
  for (int64_t j = 0; j < lanes; ++j) {
    sum += partial[j];
  }
  return {max, sum};
}

template <typename Real>
Real sum_of(const Real* x, int64_t begin, int64_t end) {
  Real partial[lanes] = {};
  int64_t i = begin;
  for (; i + lanes <= end; i += lanes) {
    for (int64_t j = 0; j < lanes; ++j) {
      partial[j] += x[i + j];
    }
  }
  for (; i < end; ++i) {
    partial[0] += x[i];
  }
  Real sum = 0;
  for (int64_t j = 0; j < lanes; ++j) {
    sum += partial[j];
  }
  return sum;
}

// alpha(t) from alpha(t - 1) and the emissions of frame t, equation 6.
template <typename Real>
void alpha_step(
    Band band,
    const Int<Real>* skip,
    States<Real> previous,
    Extended<Real> blank,
    Row<Real> label,
    States<Real> next) {
  INDEPENDENT
  for (int64_t i = band.begin; i < band.end; ++i) {
    auto stay = previous.label[i];
    auto step = previous.blank[i];
    auto jump = previous.label[i - 1];
    next.blank.set(i, normalised((step + jump) * blank));
    jump.e += skip[i];
    next.label.set(i, normalised(sum(stay, step, jump) * label[i]));
  }
  next.blank.set(band.end, zero<Real>());
  next.label.set(band.end, zero<Real>());
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
  INDEPENDENT
  for (int64_t i = band.begin; i < band.end; ++i) {
    auto stay = weighted.label[i];
    auto step = weighted.blank[i + 1];
    auto jump = weighted.label[i + 1];
    jump.e += skip[i + 1];
    auto beta_blank = weighted.blank[i] + stay;
    auto beta_label = sum(stay, step, jump);

    auto posterior_blank = alpha.blank[i] * beta_blank * inverse_z;
    auto posterior_label = alpha.label[i] * beta_label * inverse_z;
    gamma_blank[i] =
        posterior_blank.m * power_of_two<Real>(posterior_blank.e);
    gamma_label[i] =
        posterior_label.m * power_of_two<Real>(posterior_label.e);

    next.blank.set(i, normalised(beta_blank * blank));
    next.label.set(i, normalised(beta_label * label[i]));
  }
  next.blank.set(band.begin - 1, zero<Real>());
  next.label.set(band.begin - 1, zero<Real>());
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
    offsets_ = workspace_.take<int64_t>(S_ + 1);
    skip_ = workspace_.take<Int<Real>>(S_ + 2);
    scores_ = workspace_.take<Real>(S_ + 1);
    row_ = workspace_.take<Real>(sequence.classes);
    const int32_t* labels = sequence.labels;
    for (int64_t i = 0; i < S_; ++i) {
      offsets_[i] = labels[i] * sequence.class_stride;
      // A blank between equal labels cannot be skipped.
      bool skippable = i > 0 && labels[i] != labels[i - 1];
      skip_[i] = skippable ? 0 : zero_exponent;
      repeats_ += i > 0 && !skippable;
    }
    skip_[S_] = skip_[S_ + 1] = zero_exponent;
  }

  double loss() {
    if (!feasible()) {
      return std::numeric_limits<double>::infinity();
    }
    States<Real> alpha = workspace_.take_states<Real>(pitch_);
    States<Real> next = workspace_.take_states<Real>(pitch_);
    Row<Real> label = workspace_.take_row<Real>(pitch_);
    start(alpha);
    for (int t = 0; t < sequence_.frames; ++t) {
      if (t > 0 && t % saved_.interval == 0) {
        copy(alpha, checkpoint(t), band(t - 1));
      }
      if (sequence_.with_logits) {
        normalisers()[t] = normaliser(frame(t), sequence_.classes);
      }
      Extended<Real> blank = emit(t, label);
      alpha_step(band(t), skip_, alpha, blank, label, next);
      std::swap(alpha, next);
    }
    Extended<Real> z = total(alpha);
    if (!valid_) {
      return std::numeric_limits<double>::quiet_NaN();
    }
    if (z.e < nearly_zero) {
      return std::numeric_limits<double>::infinity();
    }
    return -(std::log2(double(z.m)) + double(z.e)) * ln_2;
  }

  void gradient(Real cotangent, In* out, int64_t out_stride) {
    int frames = sequence_.frames;
    int interval = smaller(saved_.interval, frames);
    gamma_blank_ = workspace_.take<Real>(S_ + 1);
    gamma_label_ = workspace_.take<Real>(S_ + 1);
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

    clear(weighted);
    clear(next);
    // After the last frame an alignment has ended in the last blank or, one
    // step back, in the last label.
    weighted.blank.set(S_, {Real(1), 0});
    Extended<Real> inverse_z = zero<Real>();
    int last = (frames - 1) / interval * interval;
    for (int begin = last; begin >= 0; begin -= interval) {
      int end = smaller(begin + interval, frames);
      if (begin == 0) {
        start(entry);
      } else {
        copy(checkpoint(begin), entry, band(begin - 1));
      }
      for (int t = begin; t < end; ++t) {
        int j = t - begin;
        blank[j] = emit(t, label[j]);
        const States<Real>& previous = j == 0 ? entry : alpha[j - 1];
        alpha_step(band(t), skip_, previous, blank[j], label[j], alpha[j]);
      }
      if (begin == last) {
        Extended<Real> z = total(alpha[end - 1 - begin]);
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
    return {larger<int64_t>(0, S_ - left), smaller<int64_t>(S_, t) + 1};
  }

  // alpha before the first frame: all probability on the first blank.
  void start(States<Real> alpha) const {
    alpha.blank.set(0, {Real(1), 0});
    alpha.label.set(0, zero<Real>());
  }

  void clear(States<Real> states) const {
    for (int64_t i = 0; i <= S_ + 1; ++i) {
      states.blank.set(i, zero<Real>());
      states.label.set(i, zero<Real>());
    }
  }

  Extended<Real> total(States<Real> alpha) const {
    return normalised(alpha.blank[S_] + alpha.label[S_ - 1]);
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

  Normaliser<Real>* normalisers() const {
    return static_cast<Normaliser<Real>*>(saved_.normalisers);
  }

  // The probabilities that frame t gives the labels, and the blank's.
  Extended<Real> emit(int t, Row<Real> label) {
    double log2_scale = sequence_.with_logits ? normalisers()[t].log2() : 0.0;
    const In* x = scores(t);
    Band b = band(t);
    int64_t end = smaller(b.end, S_);
    for (int64_t i = b.begin; i < end; ++i) {
      scores_[i] = number(x[offsets_[i]]);
    }
    Real blank = number(x[sequence_.blank * sequence_.class_stride]);

    // One comparison finds both NaN and +inf.
    constexpr Real infinity = std::numeric_limits<Real>::infinity();
    Int<Real> valid = blank < infinity && log2_scale < infinity;
    for (int64_t i = b.begin; i < end; ++i) {
      valid &= scores_[i] < infinity;
    }
    valid_ &= valid != 0;

    INDEPENDENT
    for (int64_t i = b.begin; i < end; ++i) {
      label.set(i, extended_exp(scores_[i], log2_scale));
    }
    // There is no label S: the loops run over it all the same.
    label.set(S_, zero<Real>());
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
    if (sequence_.with_logits) {
      Normaliser<Real> z = normalisers()[t];
      Real scale = cotangent / z.sum;
      INDEPENDENT
      for (int64_t c = 0; c < C; ++c) {
        row[c] = ordinary_exp(x[c] - z.max) * scale;
      }
    } else {
      INDEPENDENT
      for (int64_t c = 0; c < C; ++c) {
        row[c] = ordinary_exp(x[c]) * cotangent;
      }
    }

    Band b = band(t);
    row[sequence_.blank] -= cotangent * sum_of(gamma_blank_, b.begin, b.end);
    int64_t end = smaller(b.end, S_);
    for (int64_t i = b.begin; i < end; ++i) {
      row[sequence_.labels[i]] -= cotangent * gamma_label_[i];
    }
    if constexpr (!std::is_same_v<In, Real>) {
      for (int64_t c = 0; c < C; ++c) {
        assign(out[c], row[c]);
      }
    }
  }

  States<Real> checkpoint(int t) const {
    int64_t at = (t / saved_.interval - 1) * 2 * saved_.pitch;
    Real* m = static_cast<Real*>(saved_.mantissas) + at;
    auto* e = static_cast<Int<Real>*>(saved_.exponents) + at;
    return {{m, e}, {m + saved_.pitch, e + saved_.pitch}};
  }

  // A band of states, with the zero behind it.
  void copy(States<Real> from, States<Real> to, Band b) const {
    for (int64_t i = b.begin; i <= smaller(b.end, S_); ++i) {
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
  int64_t* offsets_; // (S) of the labels' classes, in elements
  Int<Real>* skip_; // (S + 2) exponent of what may jump to label i
  Real* scores_; // (S) of the labels in one frame
  Real* row_; // (C) one frame, where it cannot be used in place
  Real* gamma_blank_ = nullptr; // (S + 1)
  Real* gamma_label_ = nullptr; // (S + 1)
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
