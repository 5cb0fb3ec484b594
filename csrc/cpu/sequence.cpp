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
#include "cpu/workspace.h"

// INDEPENDENT: the rows that a loop reads and writes never overlap.
// UNROLLED: a short loop over scattered memory, which does not vectorise.
#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#define UNROLLED _Pragma("clang loop unroll_count(8)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#define UNROLLED _Pragma("GCC unroll 8")
#endif

namespace {

using mlx_ctc::cpu::Saved;
using mlx_ctc::cpu::Sequence;

// Loops run over whole groups of states, without remainders. What a row holds
// past the last label is zero, and stays zero.
constexpr int64_t lanes = 16;

constexpr int64_t round_down(int64_t i) {
  return i - i % lanes;
}

constexpr int64_t round_up(int64_t i) {
  return round_down(i + lanes - 1);
}

// A row has a group before index 0 and one after the last, for the neighbours
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

// Rows of one length, one after the other.
template <typename Real>
struct Rows {
  Real* m;
  Int<Real>* e;
  int64_t pitch;

  Row<Real> operator[](int64_t j) const {
    return {m + j * pitch + lanes, e + j * pitch + lanes};
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
// loops take whole groups around them; whatever else is in those has no path to
// the start, or none to the end, and neither has what they lead to.
struct Band {
  int64_t begin;
  int64_t end;
  int64_t row_end; // of the whole groups that hold all labels

  int64_t first_group() const {
    return round_down(begin);
  }

  int64_t last_group() const {
    return round_up(end);
  }
};

class LatticeWorkspace : public Workspace {
 public:
  using Workspace::Workspace;

  template <typename Real>
  Rows<Real> take_rows(int64_t count, int64_t pitch) {
    return {take<Real>(count * pitch), take<Int<Real>>(count * pitch), pitch};
  }

  template <typename Real>
  States<Real> take_states(int64_t pitch) {
    return {take_rows<Real>(1, pitch)[0], take_rows<Real>(1, pitch)[0]};
  }
};

// Mantissas are normalised every few frames: a frame makes them at most six
// times as large.
constexpr int normalising_interval = 4;

template <bool normalise, typename Real>
inline Extended<Real> kept(Extended<Real> a) {
  return normalise ? normalised(a) : saturated(a);
}

// alpha(t) from alpha(t - 1) and the emissions of frame t, equation 6.
template <bool normalise, typename Real>
void alpha_step(
    Band band,
    const Int<Real>* skip,
    States<Real> previous,
    Extended<Real> blank,
    Row<Real> label,
    States<Real> next) {
  int64_t begin = band.first_group();
  int64_t end = band.last_group();
  next.clear(begin - 1, begin);
  if (begin == 0) {
    next.blank.set(-1, kept<normalise>(previous.blank[-1] * blank));
  }
  next.clear(end, smaller(end + lanes, band.row_end));
  INDEPENDENT
  for (int64_t i = begin; i < end; ++i) {
    auto stay = previous.label[i];
    auto step = previous.blank[i - 1];
    auto jump = previous.label[i - 1];
    jump.e += skip[i];
    next.blank.set(i, kept<normalise>((previous.blank[i] + stay) * blank));
    next.label.set(i, kept<normalise>(sum(stay, step, jump) * label[i]));
  }
}

// One frame back in time, from beta(t + 1) p(t + 1) to beta(t) p(t), where
// beta(t) excludes frame t's own emission (equation 10, one emission less, so
// that gamma = alpha beta / Z needs no division by it). gamma takes the place
// of alpha's mantissas.
template <bool normalise, typename Real>
void beta_step(
    Band band,
    const Int<Real>* skip,
    States<Real> alpha,
    Extended<Real> blank,
    Row<Real> label,
    Extended<Real> inverse_z,
    States<Real> weighted,
    States<Real> next) {
  auto posterior = [&](Extended<Real> alpha, Extended<Real> beta) {
    auto gamma = alpha * beta * inverse_z;
    return gamma.m * power_of_two<Real>(gamma.e);
  };
  int64_t begin = band.first_group();
  int64_t end = band.last_group();
  if (begin == 0) {
    auto beta_blank = weighted.blank[-1] + weighted.label[0];
    alpha.blank.m[-1] = posterior(alpha.blank[-1], beta_blank);
    next.blank.set(-1, kept<normalise>(beta_blank * blank));
  } else {
    alpha.blank.m[-1] = 0;
    next.clear(begin - lanes, begin);
  }
  INDEPENDENT
  for (int64_t i = begin; i < end; ++i) {
    auto stay = weighted.label[i];
    auto step = weighted.blank[i];
    auto jump = weighted.label[i + 1];
    auto beta_blank = step + jump;
    jump.e += skip[i + 1];
    auto beta_label = sum(stay, step, jump);
    next.blank.set(i, kept<normalise>(beta_blank * blank));
    next.label.set(i, kept<normalise>(beta_label * label[i]));
    alpha.blank.m[i] = posterior(alpha.blank[i], beta_blank);
    alpha.label.m[i] = posterior(alpha.label[i], beta_label);
  }
}

// The lattice of one sequence, over memory from the workspace.
//
// Frames are taken in runs, and each step is done for the whole run before the
// next: the frames of one step do not wait for each other, except in the
// recursions themselves.
template <typename In>
class Lattice {
 public:
  using Real = typename Computing<In>::Real;

  Lattice(const Sequence& sequence, const Saved& saved, std::byte* workspace)
      : sequence_(sequence),
        saved_(saved),
        workspace_(workspace),
        T_(sequence.frames),
        C_(sequence.classes),
        S_(sequence.target_length),
        run_(smaller(saved.interval, larger(T_, 1))) {
    int64_t pitch = row_pitch(S_);
    offsets_ = workspace_.take<int64_t>(pitch);
    skip_ = workspace_.take<Int<Real>>(pitch);
    row_ = workspace_.take<Real>(C_);
    log2_scale_ = workspace_.take<double>(run_);
    blank_ = workspace_.take_rows<Real>(1, row_pitch(run_))[0];
    label_ = workspace_.take_rows<Real>(run_, pitch);
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
    if (S_ + repeats_ > T_) {
      return std::numeric_limits<double>::infinity();
    }
    auto alpha = workspace_.take_states<Real>(row_pitch(S_));
    auto next = workspace_.take_states<Real>(row_pitch(S_));
    start(alpha);
    bool valid = true;
    // The lattice runs on exp(x - max). The sums that divide it are multiplied
    // up in double.
    Extended<double> divisor = {1.0, 0};
    for (int begin = 0; begin < T_; begin += run_) {
      int end = smaller(begin + run_, T_);
      if (begin > 0) {
        copy(alpha, checkpoint(begin), band(begin - 1));
      }
      if (sequence_.with_logits) {
        for (int t = begin; t < end; ++t) {
          const In* following = scores(smaller(t + 1, T_ - 1));
          normalisers()[t] = normaliser(frame(t), following, C_);
        }
        for (int t = begin; t < end; ++t) {
          Extended<double> sum = {normalisers()[t].sum, 0};
          divisor = normalised(divisor * sum);
        }
      }
      valid &= is_valid(begin, end);
      emit(begin, end);
      for (int t = begin; t < end; ++t) {
        step_forward(t, alpha, next);
        std::swap(alpha, next);
      }
    }
    if (!valid) {
      return std::numeric_limits<double>::quiet_NaN();
    }
    Extended<Real> z = evidence(alpha);
    if (z.e < nearly_zero) {
      return std::numeric_limits<double>::infinity();
    }
    return ln_2 *
        (std::log2(divisor.m / double(z.m)) + double(divisor.e - z.e));
  }

  // The rest is for a sequence whose loss is finite and which has frames.

  void gradient(Real cotangent, In* out, int64_t out_stride) {
    for_each_posterior([&](int t, States<Real> gamma) {
      write_gradient(t, cotangent, gamma, out + t * out_stride, out_stride);
    });
  }

  // out (T, width)
  void posteriors(bool by_class, Real* out, int64_t width) {
    for_each_posterior([&](int t, States<Real> gamma) {
      write_posteriors(t, by_class, gamma, out + t * width, width);
    });
  }

 private:
  // Calls visit(t, gamma) for all frames, gamma being in the mantissas.
  template <typename Visit>
  void for_each_posterior(Visit visit) {
    int64_t pitch = row_pitch(S_);
    auto entry = workspace_.take_states<Real>(pitch);
    auto weighted = workspace_.take_states<Real>(pitch);
    auto next = workspace_.take_states<Real>(pitch);
    auto blank_rows = workspace_.take_rows<Real>(run_, pitch);
    auto label_rows = workspace_.take_rows<Real>(run_, pitch);
    auto alpha = [&](int j) {
      return States<Real>{blank_rows[j], label_rows[j]};
    };
    weighted.clear(-lanes, round_up(S_) + lanes);
    next.clear(-lanes, round_up(S_) + lanes);
    // From here a step back leads to the last blank and to the last label.
    weighted.blank.set(S_ - 1, {Real(1), 0});

    Extended<Real> inverse_z = zero<Real>();
    int last = (T_ - 1) / run_ * run_;
    for (int begin = last; begin >= 0; begin -= run_) {
      int end = smaller(begin + run_, T_);
      if (begin == 0) {
        start(entry);
      } else {
        Band b = band(begin - 1);
        entry.clear(
            b.first_group() - 1, smaller(b.last_group() + lanes, b.row_end));
        copy(checkpoint(begin), entry, b);
      }
      emit(begin, end);
      for (int t = begin; t < end; ++t) {
        int j = t - begin;
        step_forward(t, j == 0 ? entry : alpha(j - 1), alpha(j));
      }
      if (begin == last) {
        Extended<Real> z = evidence(alpha(end - 1 - begin));
        inverse_z = {1 / z.m, -z.e};
      }
      for (int t = end - 1; t >= begin; --t) {
        step_back(t, alpha(t - begin), inverse_z, weighted, next);
        std::swap(weighted, next);
      }
      for (int t = begin; t < end; ++t) {
        visit(t, alpha(t - begin));
      }
    }
  }

  Band band(int t) const {
    return {
        larger<int64_t>(0, S_ - (T_ - t)),
        smaller<int64_t>(S_, t + 1),
        round_up(S_)};
  }

  // Calls step(true_type) at the frames that normalise, step(false_type) at the
  // others.
  template <typename Step>
  static void at_frame(int t, Step step) {
    if (t % normalising_interval == 0) {
      step(std::true_type());
    } else {
      step(std::false_type());
    }
  }

  void step_forward(int t, States<Real> previous, States<Real> next) const {
    int j = t % run_;
    at_frame(t, [&](auto normalise) {
      alpha_step<normalise()>(
          band(t), skip_, previous, blank_[j], label_[j], next);
    });
  }

  void step_back(
      int t,
      States<Real> alpha,
      Extended<Real> inverse_z,
      States<Real> weighted,
      States<Real> next) const {
    int j = t % run_;
    at_frame(t, [&](auto normalise) {
      beta_step<normalise()>(
          band(t),
          skip_,
          alpha,
          blank_[j],
          label_[j],
          inverse_z,
          weighted,
          next);
    });
  }

  // alpha before the first frame: all probability on the first blank.
  void start(States<Real> alpha) const {
    alpha.clear(-1, smaller(lanes, round_up(S_)));
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
      for (int64_t c = 0; c < C_; ++c) {
        row_[c] = number(x[c]);
      }
    } else {
      for (int64_t c = 0; c < C_; ++c) {
        row_[c] = number(x[c * stride]);
      }
    }
    return row_;
  }

  Normaliser* normalisers() const {
    return static_cast<Normaliser*>(saved_.normalisers);
  }

  // Whether each frame has a probability for the blank and every label, also
  // where no alignment passes. One comparison finds both NaN and +inf.
  bool is_valid(int begin, int end) const {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    int valid = 1;
    for (int t = begin; t < end; ++t) {
      if (sequence_.with_logits) {
        valid &= normalisers()[t].sum < infinity;
        continue;
      }
      const In* x = scores(t);
      valid &= number(x[sequence_.blank * sequence_.class_stride]) < infinity;
      for (int64_t i = 0; i < S_; ++i) {
        valid &= number(x[offsets_[i]]) < infinity;
      }
    }
    return valid != 0;
  }

  // The probabilities that each frame gives the blank and the labels; of
  // logits, as multiples of the greatest class's.
  void emit(int begin, int end) {
    // Scores above 0 are no log-probabilities: so far up that their product
    // would lift a zero to a number, they saturate.
    double ceiling = double(1 << 23) / T_;
    for (int t = begin; t < end; ++t) {
      const In* x = scores(t);
      bool logits = sequence_.with_logits;
      log2_scale_[t - begin] = logits ? normalisers()[t].max * log2_e : 0;
      blank_.m[t - begin] = number(x[sequence_.blank * sequence_.class_stride]);
      Real* score = label_[t - begin].m;
      int64_t first = band(t).first_group();
      int64_t last = band(t).last_group();
      int64_t known = smaller(last, S_);
      const int64_t* offsets = offsets_;
      UNROLLED
      for (int64_t i = first; i < known; ++i) {
        score[i] = number(x[offsets[i]]);
      }
      for (int64_t i = known; i < last; ++i) {
        score[i] = -std::numeric_limits<Real>::infinity();
      }
    }
    for (int t = begin; t < end; ++t) {
      const Row<Real> label = label_[t - begin];
      double scale = log2_scale_[t - begin];
      int64_t first = band(t).first_group();
      int64_t last = band(t).last_group();
      INDEPENDENT
      for (int64_t i = first; i < last; ++i) {
        label.set(i, extended_exp(label.m[i], scale, ceiling));
      }
    }
    int count = end - begin;
    INDEPENDENT
    for (int j = 0; j < count; ++j) {
      blank_.set(j, extended_exp(blank_.m[j], log2_scale_[j], ceiling));
    }
  }

  // cotangent * (softmax - gamma), gamma summed over the states of a class.
  void write_gradient(
      int t,
      Real cotangent,
      const States<Real>& gamma, // in the mantissas
      In* out,
      int64_t out_stride) {
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
    int following = smaller(t + 1, T_ - 1);
    scaled_exp(
        x,
        scores(following),
        C_,
        Real(z.max),
        Real(cotangent / z.sum),
        row,
        out + (following - t) * out_stride);

    Band b = band(t);
    int64_t begin = b.first_group();
    int64_t end = b.last_group();
    Real blanks = gamma.blank.m[-1] + sum(gamma.blank.m, begin, end);
    // A frame's posteriors sum to 1. Dividing by their sum takes out what
    // alpha, beta and Z have gathered in rounding over the whole sequence.
    Real scale = cotangent / (blanks + sum(gamma.label.m, begin, end));
    row[sequence_.blank] -= scale * blanks;
    const int32_t* labels = sequence_.labels;
    const Real* gamma_label = gamma.label.m;
    UNROLLED
    for (int64_t i = b.begin; i < b.end; ++i) {
      row[labels[i]] -= scale * gamma_label[i];
    }
    if constexpr (!std::is_same_v<In, Real>) {
      for (int64_t c = 0; c < C_; ++c) {
        assign(out[c], row[c]);
      }
    }
  }

  // The blanks' posteriors, summed, and those of the labels one by one; or
  // those of the classes.
  void write_posteriors(
      int t,
      bool by_class,
      const States<Real>& gamma, // in the mantissas
      Real* row,
      int64_t width) {
    Band b = band(t);
    int64_t begin = b.first_group();
    int64_t end = b.last_group();
    Real blanks = gamma.blank.m[-1] + sum(gamma.blank.m, begin, end);
    Real scale = 1 / (blanks + sum(gamma.label.m, begin, end));
    for (int64_t i = 0; i < width; ++i) {
      row[i] = 0;
    }
    row[by_class ? sequence_.blank : 0] = scale * blanks;
    for (int64_t i = b.begin; i < b.end; ++i) {
      row[by_class ? sequence_.labels[i] : i + 1] += scale * gamma.label.m[i];
    }
  }

  // alpha before frame t, which begins a run.
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
  LatticeWorkspace workspace_;
  int T_;
  int64_t C_;
  int64_t S_;
  int run_; // frames in a run
  int64_t repeats_ = 0; // equal labels side by side
  int64_t* offsets_; // (S) of the labels' scores in a frame, in elements
  Int<Real>* skip_; // (S) exponent of what may jump to label i
  Real* row_; // (C) one frame, where it cannot be used in place
  double* log2_scale_; // (run) log2 of what the scores are multiples of
  Row<Real> blank_; // (run) p of the blank in each frame
  Rows<Real> label_; // (run, S) p of the labels
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

template <typename In>
void posteriors(
    const Sequence& sequence,
    const Saved& saved,
    bool by_class,
    void* posteriors,
    int64_t width,
    std::byte* workspace) {
  using Real = typename Computing<In>::Real;
  Lattice<In>(sequence, saved, workspace)
      .posteriors(by_class, static_cast<Real*>(posteriors), width);
}

// An upper bound: three rows for each frame of a run, and less than a dozen
// others, each begun on a cache line.
template <typename In>
size_t workspace_bytes(int classes, int max_target_length, int interval) {
  using Real = typename Computing<In>::Real;
  size_t number = 2 * sizeof(Real); // with its exponent
  size_t row = row_pitch(max_target_length) * number + 128;
  size_t frame = 3 * row + number + sizeof(double);
  return interval * frame + 12 * row + classes * sizeof(Real) + 1024;
}

template <typename In>
constexpr mlx_ctc::cpu::Kernels kernels_for =
    {loss<In>, gradient<In>, posteriors<In>, workspace_bytes<In>};

} // namespace

namespace mlx_ctc::cpu::MLX_CTC_ISA {

extern const Kernels table[] = {
    kernels_for<Half>,
    kernels_for<BFloat>,
    kernels_for<float>,
    kernels_for<double>};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
