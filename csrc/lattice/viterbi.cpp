// The most probable alignment of one sequence, by the recursion of Graves et
// al. 2006, equation 6, with the maximum of the terms in place of their sum.
//
// Log-probabilities are integers in units of 2^-32 nats. Integers add without
// rounding: equally probable paths are found equal at any length, and every
// machine finds the same path.
//
// This file is compiled once for each instruction set, like sequence.cpp.
#include "lattice/viterbi.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lattice/element.h"
#include "lattice/scores.h"
#include "lattice/softmax.h"
#include "lattice/target.h"
#include "lattice/viterbi_pass.h"
#include "lattice/workspace.h"

namespace mlx_ctc::cpu::MLX_CTC_ISA {

namespace {

// x nats in units of 2^-32 nats, rounded towards zero. NaN becomes
// `impossible`.
template <typename Real>
inline int64_t fixed_point(Real x, Real greatest) {
  constexpr Real least = impossible;
  Real scaled = x * Real(int64_t(1) << 32);
  scaled = scaled > least ? scaled : least;
  scaled = scaled < greatest ? scaled : greatest;
  return int64_t(scaled);
}

// out[i] = table[index[i]] for i in [begin, end).
inline void look_up(
    const int64_t* __restrict table,
    const int32_t* __restrict index,
    int64_t begin,
    int64_t end,
    int64_t* __restrict out) {
  for (int64_t i = begin; i < end; ++i) {
    out[i] = table[index[i]];
  }
}

// How many passes take so many frames.
constexpr int64_t passes(int64_t frames) {
  return (frames + pass_frames - 1) / pass_frames;
}

// How many pairs a target of S labels has, S + 1, rounded up to whole blocks.
constexpr int64_t padded_pairs(int64_t S) {
  return S / block_pairs * block_pairs + block_pairs;
}

template <typename Real>
class ViterbiRecursion {
 public:
  ViterbiRecursion(
      const Sequence& sequence,
      const ElementType<Real>& type,
      Workspace workspace)
      : sequence_(sequence),
        scores_(sequence, type, workspace),
        T_(sequence.frames),
        C_(sequence.classes),
        S_(sequence.target_length),
        pairs_(padded_pairs(S_)),
        classes_(sequence, pairs_, workspace) {
    row_ = workspace.take<Real>(C_);
    normalisers_ = workspace.take<Normaliser<double>>(T_);
    score_ = workspace.take<int64_t>(C_ + 1);
    jumping_ = workspace.take<int64_t>(pairs_);
    label_score_ = workspace.take<int64_t>(pass_frames * pairs_);
    best_.blank = workspace.take<int64_t>(pairs_);
    best_.label = workspace.take<int64_t>(pairs_);
    moves_ = workspace.take<Moves>(passes(T_) * pairs_);
    bytes_ = workspace.bytes();
  }

  // Bytes of workspace for a sequence of at most so many frames and labels. No
  // array is longer for fewer.
  static size_t bytes(int frames, int classes, int target_length) {
    Sequence sequence = {};
    sequence.frames = frames;
    sequence.classes = classes;
    sequence.target_length = target_length;
    return ViterbiRecursion(sequence, element_type<Real>, Workspace()).bytes_;
  }

  // Runs the recursion, then follows the moves back from the last frame.
  void align(int32_t* alignment, Real* scores) {
    prepare();
    bool valid = find_best_path();
    // A path ends in the last label or in the blank after it.
    int64_t i = S_;
    bool in_label = S_ > 0 && best_.label[S_ - 1] >= best_.blank[S_];
    int64_t score = in_label ? best_.label[--i] : best_.blank[i];
    if (!valid || score <= nearly_impossible) {
      std::fill_n(alignment, T_, sequence_.blank);
      std::fill_n(
          scores,
          T_,
          valid ? -std::numeric_limits<Real>::infinity()
                : std::numeric_limits<Real>::quiet_NaN());
      return;
    }
    for (int64_t t = T_ - 1; t >= 0; --t) {
      alignment[t] = in_label ? sequence_.labels[i] : sequence_.blank;
      scores[t] = log_probability(t, alignment[t]);
      Moves word = moves_[t / pass_frames * pairs_ + i];
      int move = word >> move_bits * (t % pass_frames);
      if (in_label) {
        i -= move & jump ? 1 : 0;
        in_label = move & jump || !(move & step);
      } else if (move & to_blank) {
        --i;
        in_label = true;
      }
    }
  }

 private:
  void prepare() {
    prepare_target();
    std::fill_n(best_.blank, pairs_, impossible);
    std::fill_n(best_.label, pairs_, impossible);
    // Before the first frame all paths are at the first blank.
    best_.blank[0] = 0;
    // The sum of T scores must not exceed -nearly_impossible: the limit of one
    // is halved for every doubling of T. Logits less the greatest need no
    // limit, as they are never above 0.
    greatest_ = -nearly_impossible;
    if (!sequence_.with_logits) {
      for (int64_t frames = T_ - 1; frames > 0; frames /= 2) {
        greatest_ /= 2;
      }
    }
  }

  // The pairs from S on have no label. They get the place after the classes,
  // whose score is `impossible`.
  void prepare_target() {
    classes_.list();
    score_[classes_.count] = impossible;
    std::fill(
        classes_.index_of_label + S_,
        classes_.index_of_label + pairs_,
        classes_.count);
    for (int64_t i = 0; i < pairs_; ++i) {
      jumping_[i] = may_skip_blank(sequence_, i) ? 0 : impossible;
    }
  }

  // Fills moves_ and leaves the scores of the last frame in best_. False if a
  // score was NaN or +inf.
  bool find_best_path() {
    bool valid = true;
    for (int64_t t = 0; t < T_; t += pass_frames) {
      int64_t count = std::min<int64_t>(pass_frames, T_ - t);
      // The pairs that a path can be at: a frame adds at most one label.
      int64_t begin = larger<int64_t>(0, S_ - (T_ - t) - 1);
      begin -= begin % block_pairs;
      int64_t end = padded_pairs(std::min(t + count - 1, S_));
      int64_t blank_score[pass_frames];
      for (int64_t k = 0; k < count; ++k) {
        valid &= read_scores(t + k);
        blank_score[k] = score_[classes_.index_of_blank];
        look_up(
            score_,
            classes_.index_of_label,
            begin,
            end,
            label_score_ + k * pairs_);
      }
      viterbi_passes[count - 1](
          begin,
          end,
          jumping_,
          blank_score,
          label_score_,
          pairs_,
          best_,
          moves_ + t / pass_frames * pairs_);
    }
    return valid;
  }

  // Neither NaN nor +inf.
  static bool is_valid(Real x) {
    return x < std::numeric_limits<Real>::infinity();
  }

  // Reads frame t's scores of the target's classes into score_; of logits, less
  // the greatest. False if one is NaN or +inf.
  bool read_scores(int64_t t) {
    int64_t valid = 1;
    int64_t greatest_logit = 0;
    if (sequence_.with_logits) {
      auto found =
          compute_normaliser(scores_.frame(t), C_, scores_.stored(t + 1));
      normalisers_[t] = {found.max, found.rest};
      valid = is_valid(normalisers_[t].sum());
      greatest_logit =
          fixed_point<Real>(normalisers_[t].max, -nearly_impossible);
    }
    constexpr int64_t ahead = 16; // frames
    scores_.gather(t, t + ahead, classes_.classes, classes_.count, row_);
    // Copies of the members: a store to out[k] might otherwise change them, and
    // the loop would not vectorise.
    const Real* x = row_;
    int64_t* out = score_;
    auto score = [greatest_logit, greatest = greatest_](Real x) {
      return larger(fixed_point(x, greatest) - greatest_logit, impossible);
    };
    for (int64_t k = 0, count = classes_.count; k < count; ++k) {
      valid &= is_valid(x[k]);
      out[k] = score(x[k]);
    }
    return valid != 0;
  }

  Real log_probability(int64_t t, int32_t c) const {
    Real x = scores_.at(t, c);
    if (sequence_.with_logits) {
      return x - normalisers_[t].max - std::log(normalisers_[t].sum());
    }
    return x;
  }

  const Sequence& sequence_;
  const Scores<Real> scores_;
  const int64_t T_;
  const int64_t C_;
  const int64_t S_;
  const int64_t pairs_; // S + 1, and more for whole blocks
  TargetClasses classes_; // whose scores are read
  Real* row_; // (classes_.count) a frame's scores
  Normaliser<double>* normalisers_; // (T) of logits
  int64_t* score_; // (classes_.count + 1) the same, in units of 2^-32 nats
  int64_t* jumping_; // (pairs) 0 if the blank may be skipped, else `impossible`
  int64_t* label_score_; // (pass_frames, pairs)
  Real greatest_; // limit of a score in units of 2^-32 nats
  ViterbiStates best_;
  Moves* moves_; // (T / pass_frames, pairs)
  size_t bytes_; // of the workspace
};

template <typename In>
void align(
    const Sequence& sequence,
    int32_t* alignment,
    void* scores,
    std::span<std::byte> workspace) {
  using Real = typename Computing<In>::Real;
  ViterbiRecursion(sequence, element_type<In>, Workspace(workspace))
      .align(alignment, static_cast<Real*>(scores));
}

template <typename In>
constexpr Viterbi viterbi_for = {
    align<In>,
    ViterbiRecursion<typename Computing<In>::Real>::bytes};

} // namespace

extern const Viterbi viterbi_table[] = {
    viterbi_for<Half>,
    viterbi_for<BFloat>,
    viterbi_for<float>,
    viterbi_for<double>};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
