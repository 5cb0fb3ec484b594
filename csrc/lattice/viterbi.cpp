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

constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// The first pair of the block that pair i is in.
constexpr int64_t block_begin(int64_t i) {
  return i / block_pairs * block_pairs;
}

// How many pairs a target of S labels has, S + 1, rounded up to whole blocks.
constexpr int64_t padded_pairs(int64_t S) {
  return block_begin(S) + block_pairs;
}

// A path's state: label i, or the blank before it.
struct State {
  int64_t i;
  bool in_label;
};

// Where paths have to be after t frames: in pair i, or in the label before it.
struct Goal {
  int64_t t;
  int64_t i;
};

template <typename Real>
class ViterbiRecursion {
 public:
  ViterbiRecursion(
      const Sequence& sequence,
      int segment_frames,
      const ElementType<Real>& type,
      Workspace workspace)
      : sequence_(sequence),
        scores_(sequence, type, workspace),
        T_(sequence.frames),
        C_(sequence.classes),
        S_(sequence.target_length),
        pairs_(padded_pairs(S_)),
        segment_frames_(segment_frames),
        segments_(larger<int64_t>(1, ceil_div(T_, segment_frames))),
        classes_(sequence, pairs_, workspace) {
    row_ = workspace.take<Real>(C_);
    normalisers_ = workspace.take<Normaliser<double>>(T_);
    score_ = workspace.take<int64_t>(C_ + 1);
    jumping_ = workspace.take<int64_t>(pairs_);
    label_score_ = workspace.take<int64_t>(pass_frames * pairs_);
    best_.blank = workspace.take<int64_t>(pairs_);
    best_.label = workspace.take<int64_t>(pairs_);
    checkpoints_ = workspace.take<int64_t>((segments_ - 1) * 2 * pairs_);
    // A path enters at most one pair in a frame.
    int64_t frames = std::min<int64_t>(segment_frames, T_);
    width_ = std::min(pairs_, block_begin(frames) + 2 * block_pairs);
    moves_ = workspace.take<Moves>(ceil_div(frames, pass_frames) * width_);
    bytes_ = workspace.bytes();
  }

  // Bytes of workspace for a sequence of at most so many frames and labels, and
  // for fewer.
  static size_t
  bytes(int frames, int classes, int target_length, int segment_frames) {
    Sequence sequence = {};
    sequence.frames = frames;
    sequence.classes = classes;
    sequence.target_length = target_length;
    return ViterbiRecursion(
               sequence, segment_frames, element_type<Real>, Workspace())
        .bytes_;
  }

  // Runs the recursion, with checkpoints between the segments. Then follows the
  // path back, segment by segment: each but the last is run again from its
  // checkpoint, for the moves of the pairs from which the path can have come.
  void align(int32_t* alignment, Real* scores) {
    prepare();
    bool valid = true;
    Goal end = {T_, S_};
    int64_t last = segments_ - 1;
    for (int64_t k = 0; k < last; ++k) {
      valid &= run<false>(k, end);
      save_checkpoint(k + 1);
    }
    valid &= run<true>(last, end);
    // A path ends in the last label or in the blank after it.
    State state = {S_, false};
    int64_t score = best_.blank[S_];
    if (S_ > 0 && best_.label[S_ - 1] >= score) {
      state = {S_ - 1, true};
      score = best_.label[S_ - 1];
    }
    if (!valid || score <= nearly_impossible) {
      write_none(valid, alignment, scores);
      return;
    }
    state = follow(last, end, state, alignment, scores);
    for (int64_t k = last - 1; k >= 0; --k) {
      Goal goal = {segment_end(k), state.i};
      load_checkpoint(k);
      run<true>(k, goal);
      state = follow(k, goal, state, alignment, scores);
    }
  }

 private:
  void prepare() {
    prepare_target();
    load_checkpoint(0);
    // A score is at most -nearly_impossible / 2^k, with 2^k >= T, so that a sum
    // of T scores does not exceed -nearly_impossible. Logits need no such
    // limit: less the greatest of their frame, they are not above 0.
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

  int64_t segment_end(int64_t k) const {
    return std::min((k + 1) * segment_frames_, T_);
  }

  // The states before segment k, which is not the first.
  int64_t* checkpoint(int64_t k) const {
    return checkpoints_ + (k - 1) * 2 * pairs_;
  }

  void save_checkpoint(int64_t k) {
    std::copy_n(best_.blank, pairs_, checkpoint(k));
    std::copy_n(best_.label, pairs_, checkpoint(k) + pairs_);
  }

  void load_checkpoint(int64_t k) {
    if (k > 0) {
      std::copy_n(checkpoint(k), pairs_, best_.blank);
      std::copy_n(checkpoint(k) + pairs_, pairs_, best_.label);
    } else { // before the first frame all paths are at the first blank
      std::fill_n(best_.blank, pairs_, impossible);
      std::fill_n(best_.label, pairs_, impossible);
      best_.blank[0] = 0;
    }
  }

  // The first pair that a path must be in before frame t to reach the goal: a
  // frame adds at most one label.
  static int64_t first_pair(int64_t t, Goal goal) {
    return block_begin(larger<int64_t>(0, goal.i - (goal.t - t) - 1));
  }

  // Takes best_ over the frames of segment k; with `record`, fills moves_.
  // False if a score was NaN or +inf.
  template <bool record>
  bool run(int64_t k, Goal goal) {
    bool valid = true;
    const int64_t t0 = k * segment_frames_;
    const int64_t frames = segment_end(k) - t0;
    const int64_t first = first_pair(t0, goal);
    for (int64_t done = 0; done < frames; done += pass_frames) {
      int64_t t = t0 + done;
      int64_t count = std::min<int64_t>(pass_frames, frames - done);
      int64_t begin = first_pair(t, goal);
      int64_t end = padded_pairs(std::min(t + count - 1, goal.i));
      int64_t blank_score[pass_frames];
      for (int64_t j = 0; j < count; ++j) {
        valid &= read_scores(t + j);
        blank_score[j] = score_[classes_.index_of_blank];
        look_up(
            score_,
            classes_.index_of_label,
            begin,
            end,
            label_score_ + j * pairs_);
      }
      viterbi_passes<record>[count - 1](
          begin,
          end,
          jumping_,
          blank_score,
          label_score_,
          pairs_,
          best_,
          moves_ + done / pass_frames* width_ + (begin - first));
    }
    return valid;
  }

  // Writes the path through segment k, from its state in the segment's last
  // frame, and returns its state in the frame before the segment.
  State follow(
      int64_t k,
      Goal goal,
      State state,
      int32_t* alignment,
      Real* scores) const {
    const int64_t t0 = k * segment_frames_;
    const int64_t first = first_pair(t0, goal);
    auto [i, in_label] = state;
    for (int64_t t = segment_end(k) - 1; t >= t0; --t) {
      alignment[t] = in_label ? sequence_.labels[i] : sequence_.blank;
      scores[t] = log_probability(t, alignment[t]);
      int64_t frame = t - t0;
      Moves word = moves_[frame / pass_frames * width_ + (i - first)];
      int move = word >> move_bits * (frame % pass_frames);
      if (in_label) {
        i -= move & jump ? 1 : 0;
        in_label = move & jump || !(move & step);
      } else if (move & to_blank) {
        --i;
        in_label = true;
      }
    }
    return {i, in_label};
  }

  // For a sequence without a path. `valid`: no score was NaN or +inf.
  void write_none(bool valid, int32_t* alignment, Real* scores) const {
    using Limits = std::numeric_limits<Real>;
    std::fill_n(alignment, T_, sequence_.blank);
    std::fill_n(scores, T_, valid ? -Limits::infinity() : Limits::quiet_NaN());
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
      if (t == normalised_) {
        auto found =
            compute_normaliser(scores_.frame(t), C_, scores_.stored(t + 1));
        normalisers_[t] = {found.max, found.rest};
        ++normalised_;
      }
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
  const int64_t segment_frames_;
  const int64_t segments_;
  TargetClasses classes_; // whose scores are read
  Real* row_; // (classes_.count) a frame's scores
  int64_t* score_; // (classes_.count + 1) the same, in units of 2^-32 nats
  Normaliser<double>* normalisers_; // (T) of logits
  int64_t normalised_ = 0; // frames whose normalisers have been found
  int64_t* jumping_; // (pairs) 0 if the blank may be skipped, else `impossible`
  int64_t* label_score_; // (pass_frames, pairs)
  Real greatest_; // limit of a score in units of 2^-32 nats
  ViterbiStates best_;
  int64_t* checkpoints_; // (segments - 1, 2, pairs) blanks, labels
  int64_t width_; // pairs that one path can be in within a segment
  Moves* moves_; // (segment_frames / pass_frames, width)
  size_t bytes_; // of the workspace
};

template <typename In>
void align(
    const Sequence& sequence,
    int segment_frames,
    int32_t* alignment,
    void* scores,
    std::span<std::byte> workspace) {
  using Real = typename Computing<In>::Real;
  ViterbiRecursion(
      sequence, segment_frames, element_type<In>, Workspace(workspace))
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
