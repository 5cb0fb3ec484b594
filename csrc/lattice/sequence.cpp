// The forward-backward algorithm of one sequence: its loss, its gradient, its
// posteriors (Graves et al. 2006, section 4.1).
//
// The loss takes alpha from the first frame to the last and saves it between
// segments. The gradient goes over the segments from the last to the first: it
// computes alpha of all frames of a segment again, from the saved one, then
// takes beta_p back through the segment. Between segments alpha and beta_p are
// numbers of extended range. Within a segment ScaledSegment computes in
// doubles; where it refuses, ExtendedSegment takes over.
//
// This file and its headers are compiled once for each instruction set, into
// the namespace mlx_ctc::cpu::MLX_CTC_ISA. A function compiled twice has two
// names, so that the linker cannot use the code of one instruction set in place
// of another's.
#include "lattice/sequence.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "lattice/class_sums.h"
#include "lattice/element.h"
#include "lattice/extended_segment.h"
#include "lattice/extended_states.h"
#include "lattice/frames.h"
#include "lattice/gradient_rows.h"
#include "lattice/scaled_segment.h"
#include "lattice/softmax.h"
#include "simd/blocks.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

namespace {

// ScaledSegment keeps the precision of float scores by computing in double. For
// double scores there is no wider type: they always go to ExtendedSegment.
template <typename Real>
constexpr bool has_scaled_segment = std::is_same_v<Real, float>;

struct NoScaledSegment {
  NoScaledSegment(const Frames<double>&, Workspace&) {}
};

template <typename Real>
class ForwardBackward {
 public:
  ForwardBackward(
      const Sequence& sequence,
      const Saved& saved,
      const ElementType<Real>& type,
      Workspace workspace)
      : saved_(saved),
        workspace_(workspace),
        frames_(sequence, saved, type, workspace_),
        alpha_(take_states<Real>(workspace_, row_pitch(frames_.S))),
        beta_p_(take_states<Real>(workspace_, row_pitch(frames_.S))),
        next_(take_states<Real>(workspace_, row_pitch(frames_.S))),
        alpha_of_loss_(take_states<double>(workspace_, row_pitch(frames_.S))),
        next_of_loss_(take_states<double>(workspace_, row_pitch(frames_.S))),
        class_sums_(frames_, workspace_),
        overlay_(workspace_),
        overlay_of_loss_(workspace_),
        extended_(frames_, next_, workspace_),
        scaled_(frames_, overlay_),
        extended_forward_(frames_, next_of_loss_, overlay_of_loss_) {}

  // Bytes of workspace for a sequence of at most `target_length` labels. No
  // array is longer for fewer labels or frames.
  static size_t bytes(int classes, int target_length, int segment_frames) {
    Sequence sequence = {};
    sequence.frames = segment_frames;
    sequence.classes = classes;
    sequence.target_length = target_length;
    Saved saved = {};
    saved.segment_frames = segment_frames;
    ForwardBackward measured(sequence, saved, element_type<Real>, Workspace());
    return larger(
        larger(measured.workspace_.bytes(), measured.overlay_.bytes()),
        measured.overlay_of_loss_.bytes());
  }

  // -log z, with z = alpha(T, blank) + alpha(T, label) of the last label and
  // the blank after it (equation 8). Saves alpha between segments, and the
  // normalisers of logits.
  double loss() {
    frames_.prepare();
    if (!frames_.has_alignment()) {
      return std::numeric_limits<double>::infinity();
    }
    start(alpha_of_loss_);
    bool valid = true;
    Divisor divisor;
    for (int begin = 0; begin < frames_.T; begin += frames_.segment_frames) {
      int end = segment_end(begin);
      if (begin > 0) {
        copy(alpha_of_loss_, checkpoint(begin), frames_.band(begin - 1));
      }
      valid &= forward(begin, end, divisor);
    }
    if (!valid || !divisor.is_valid) {
      return std::numeric_limits<double>::quiet_NaN();
    }
    Extended<double> z = z_of(alpha_of_loss_, frames_.S);
    if (z.e < nearly_zero) { // no alignment
      return std::numeric_limits<double>::infinity();
    }
    return ln_2 *
        (divisor.log2 + std::log2(divisor.sums.m / z.m) +
         double(divisor.sums.e - z.e));
  }

  // The same, and if the loss is finite, gradient() for a cotangent of 1.
  double loss_and_gradient(bool normalized, GradientRows<Real> rows) {
    is_followed_by_gradient_ = true;
    double minus_log_z = loss();
    if (std::isfinite(minus_log_z) && frames_.T > 0) {
      gradient(1, normalized, rows);
    }
    return minus_log_z;
  }

  // cotangent * (softmax - gamma) with gamma summed over the states of a class,
  // equations 15 and 16; without the softmax if the scores are not normalized.
  // Like posteriors(), it needs a finite loss and at least one frame. The
  // product with the cotangent is formed last, as of a gradient that was
  // computed with the loss.
  void gradient(Real cotangent, bool normalized, GradientRows<Real> rows) {
    frames_.prepare();
    class_sums_.prepare();
    auto fetch = [&](int t) __attribute__((always_inline)) {
      if (frames_.is_dense) { // else write_gradient() does
        rows.fetch(t);
      }
    };
    visit_posteriors(fetch, [&](int begin, int end, Posteriors<Real> gamma) {
      auto [first, last] = frames_.groups_around(begin);
      class_sums_.sum(gamma, first, last);
      auto totals = load_block(gamma.totals);
      if (normalized && gamma.unnormalised) {
        auto scale = load_block(gamma.inverse_sum);
        class_sums_.subtract_from(
            [&](int64_t c) { return gamma.unnormalised[c] * scale; }, totals);
        // Some time before the rows are copied: a block of numbers one of which
        // is still being written would be waited for.
        for (int t = begin; t < end; ++t) {
          int j = t - begin;
          correct_likely_class(t, j, class_sums_.frame(j));
        }
        for (int t = begin; t < end; ++t) {
          rows.copy(t, class_sums_.frame(t - begin), cotangent);
        }
        return;
      }
      class_sums_.subtract_from([](int64_t) { return Block<Real>{}; }, totals);
      for (int t = begin; t < end; ++t) {
        if (!normalized && frames_.is_dense) {
          rows.copy(t, class_sums_.frame(t - begin), cotangent);
        } else {
          write_gradient(t, cotangent, normalized, t - begin, rows);
        }
      }
    });
    rows.finish();
  }

  // gamma of all frames, out (T, width): the terms of equation 14 divided by z.
  void posteriors(bool by_class, Real* out, int64_t width) {
    frames_.prepare();
    auto fetch = [](int) {};
    visit_posteriors(fetch, [&](int begin, int end, Posteriors<Real> gamma) {
      for (int t = begin; t < end; ++t) {
        write_posteriors(t, by_class, gamma, t - begin, out + t * width, width);
      }
    });
  }

 private:
  // Takes alpha_of_loss_ from the frame before `begin` to the frame before
  // `end`. False if one of the log-probabilities is NaN or +inf.
  bool forward(int begin, int end, Divisor& divisor) {
    if constexpr (has_scaled_segment<Real>) {
      bool storing = is_followed_by_gradient_ && end - begin == frames_.T;
      if (scaled_.forward(begin, end, alpha_of_loss_, divisor, storing)) {
        return true;
      }
    } else {
      frames_.normalise(begin, end, divisor);
    }
    extended_forward_.forward(begin, end, alpha_of_loss_);
    return frames_.is_valid(begin, end);
  }

  // Calls visit(begin, end, posteriors) for all frames, as many at a time as a
  // block has elements, segment by segment from the last to the first; and some
  // time before that, fetch(t) for each of them.
  template <typename Fetch, typename Visit>
  void visit_posteriors(Fetch fetch, Visit visit) {
    beta_p_.clear(-group_size, round_up(frames_.S) + group_size);
    // As if a frame after the last were at the last blank: a step back from it
    // gives beta = 1 to the last blank and to the last label.
    beta_p_.blank.set(frames_.S - 1, {Real(1), 0});

    Extended<Real> inverse_z = zero<Real>();
    int last =
        (frames_.T - 1) / frames_.segment_frames * frames_.segment_frames;
    for (int begin = last; begin >= 0; begin -= frames_.segment_frames) {
      int end = segment_end(begin);
      start(alpha_);
      if (begin > 0) {
        alpha_.clear(-group_size, round_up(frames_.S) + group_size);
        copy(checkpoint(begin), alpha_, frames_.band(begin - 1));
      }
      if constexpr (has_scaled_segment<Real>) {
        if (visit_segment(scaled_, begin, end, inverse_z, fetch, visit)) {
          continue;
        }
      }
      visit_segment(extended_, begin, end, inverse_z, fetch, visit);
    }
  }

  // Computes gamma of one segment and visits it; takes beta_p_ to its first
  // frame. False, without a visit, if `segment` refuses the scores.
  template <typename Segment, typename Fetch, typename Visit>
  bool visit_segment(
      Segment& segment,
      int begin,
      int end,
      Extended<Real>& inverse_z,
      Fetch fetch,
      Visit visit) {
    if (!segment.store_alphas(begin, end, alpha_)) {
      return false;
    }
    if (end == frames_.T) {
      Extended<Real> z = segment.z();
      inverse_z = {1 / z.m, -z.e};
    }
    if (!segment.compute_posteriors(begin, end, inverse_z, beta_p_, fetch)) {
      return false;
    }
    for (int t = begin; t < end; t += ClassSums<Real>::frames) {
      int count = smaller(ClassSums<Real>::frames, end - t);
      visit(t, t + count, segment.posteriors(t));
    }
    return true;
  }

  int segment_end(int begin) const {
    return smaller(begin + frames_.segment_frames, frames_.T);
  }

  // alpha before the first frame: probability 1 for the first blank. A step
  // gives the alpha of frame 0.
  template <typename State>
  void start(ExtendedStates<State> alpha) const {
    alpha.clear(-group_size, round_up(frames_.S) + group_size);
    alpha.blank.set(-1, {State(1), 0});
  }

  // In a frame's row of the gradient, the class that has more than 3/4 of gamma
  // and more than 1/2 of softmax. Near 1 their rounding errors would be greater
  // than their difference, which is also that of what the other classes have of
  // gamma and of the softmax.
  void correct_likely_class(int t, int j, Real* row) const {
    auto [c, others] = class_sums_.likely(j);
    if (c < 0) {
      return;
    }
    Real softmax = row[c] + (1 - others);
    if (softmax > Real(0.5) && softmax < 2) {
      row[c] = others - frames_.rest_of_greatest(t, c);
    }
  }

  // Frame t of the gradient: the softmax of all classes, or 0, and row j of
  // class_sums_, which holds -gamma of the classes in the target; times the
  // cotangent.
  void write_gradient(
      int t,
      Real cotangent,
      bool normalized,
      int j,
      const GradientRows<Real>& rows) {
    Real* row = rows.row(t, frames_.scores.row());
    if (normalized) {
      Normaliser<Real> normaliser = {0, 0};
      if (frames_.with_logits) {
        normaliser = frames_.normaliser(t);
      }
      Real scale = 1 / normaliser.sum();
      rows.for_each_block(t, row, frames_.scores, [&](Block<Real> x) {
        return ordinary_exp(x - normaliser.max) * scale;
      });
    } else {
      std::fill_n(row, frames_.C, Real(0));
    }
    class_sums_.add(j, row);
    if (normalized) {
      correct_likely_class(t, j, row);
    }
    rows.write(t, row, cotangent);
  }

  // Frame t of the posteriors, which is row j of `gamma`: the sum of all blanks
  // and then each label, or with `by_class` each class. Divided by the sum of
  // all, which removes the rounding of alpha, beta and z.
  void write_posteriors(
      int t,
      bool by_class,
      Posteriors<Real> gamma,
      int j,
      Real* row,
      int64_t width) {
    Real scale = 1 / gamma.totals[j];
    const Real* labels = gamma.labels + j * gamma.pitch;
    for (int64_t i = 0; i < width; ++i) {
      row[i] = 0;
    }
    row[by_class ? frames_.blank : 0] = scale * gamma.blanks[j];
    Band b = frames_.band(t);
    for (int64_t i = b.begin; i < b.end; ++i) {
      row[by_class ? frames_.labels[i] : i + 1] += scale * labels[i];
    }
  }

  // The saved alpha before frame t, the first of a segment.
  ExtendedStates<Real> checkpoint(int t) const {
    int64_t first = (t / saved_.segment_frames - 1) * 2 * saved_.pitch + 1;
    Real* m = static_cast<Real*>(saved_.mantissas) + first;
    auto* e = static_cast<Int<Real>*>(saved_.exponents) + first;
    return {{m, e}, {m + saved_.pitch, e + saved_.pitch}};
  }

  // Copies the states in band b.
  template <typename From>
  void copy(ExtendedStates<From> from, ExtendedStates<Real> to, Band b) const {
    auto rounded = [](Extended<From> a) {
      return Extended<Real>{Real(a.m), Int<Real>(a.e)};
    };
    for (int64_t i = b.begin > 0 ? b.begin : -1; i < b.end; ++i) {
      to.blank.set(i, rounded(from.blank[i]));
      to.label.set(i, rounded(from.label[i]));
    }
  }

  const Saved& saved_;
  Workspace workspace_;
  Frames<Real> frames_;
  ExtendedStates<Real> alpha_; // of the frame before a segment
  ExtendedStates<Real> beta_p_; // of the frame after a segment
  ExtendedStates<Real> next_; // a second row for extended_
  ExtendedStates<double> alpha_of_loss_; // of the frame before a segment
  ExtendedStates<double> next_of_loss_; // a second row for extended_forward_
  ClassSums<Real> class_sums_;
  Workspace overlay_; // the same memory for scaled_ as for extended_
  Workspace overlay_of_loss_; // and for extended_forward_
  ExtendedSegment<Real> extended_;
  std::conditional_t<has_scaled_segment<Real>, ScaledSegment, NoScaledSegment>
      scaled_;
  ExtendedForward<Real> extended_forward_;
  bool is_followed_by_gradient_ = false; // the loss
};

template <typename In>
double loss(
    const Sequence& sequence,
    const Saved& saved,
    std::span<std::byte> workspace) {
  return ForwardBackward(
             sequence, saved, element_type<In>, Workspace(workspace))
      .loss();
}

template <typename In>
double loss_and_gradient(
    const Sequence& sequence,
    const Saved& saved,
    bool normalized,
    void* gradient,
    int64_t gradient_stride,
    std::span<std::byte> workspace) {
  auto& type = element_type<In>;
  return ForwardBackward(sequence, saved, type, Workspace(workspace))
      .loss_and_gradient(
          normalized, {type, sequence, gradient, gradient_stride});
}

template <typename In>
void gradient(
    const Sequence& sequence,
    const Saved& saved,
    double cotangent,
    bool normalized,
    void* gradient,
    int64_t gradient_stride,
    std::span<std::byte> workspace) {
  auto& type = element_type<In>;
  ForwardBackward(sequence, saved, type, Workspace(workspace))
      .gradient(
          cotangent, normalized, {type, sequence, gradient, gradient_stride});
}

template <typename In>
void posteriors(
    const Sequence& sequence,
    const Saved& saved,
    bool by_class,
    void* posteriors,
    int64_t width,
    std::span<std::byte> workspace) {
  using Real = typename Computing<In>::Real;
  ForwardBackward(sequence, saved, element_type<In>, Workspace(workspace))
      .posteriors(by_class, static_cast<Real*>(posteriors), width);
}

template <typename In>
constexpr Kernels kernels_for = {
    loss<In>,
    loss_and_gradient<In>,
    gradient<In>,
    posteriors<In>,
    ForwardBackward<typename Computing<In>::Real>::bytes};

} // namespace

extern const Kernels table[] = {
    kernels_for<Half>,
    kernels_for<BFloat>,
    kernels_for<float>,
    kernels_for<double>};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
