// The Viterbi recursion of one sequence: the lattice of Graves et al. 2006 with
// the greatest term in place of the sum.
//
// A target of S labels makes S + 1 pairs of states, blank[i] and label[i] after
// it; the last pair has a blank alone. Log-probabilities are taken as integers,
// in units of 2^-32 nats. Integers add without rounding, whatever the length:
// equal paths are found equal, and every machine finds the same path.
//
// This file is compiled once for each instruction set, with MLX_CTC_ISA naming
// the set. Everything but the table at the end has internal linkage, so that no
// machine meets an instruction it does not have.
#include "cpu/viterbi.h"

#include <cmath>
#include <limits>
#include <utility>

#include "cpu/element.h"
#include "cpu/softmax.h"
#include "cpu/workspace.h"

namespace {

using mlx_ctc::cpu::Sequence;

// Sums saturate here. All the frames' scores together add less than half of
// it, so that what is impossible once stays below `nearly_impossible`.
constexpr int64_t impossible = -(int64_t(1) << 62);
constexpr int64_t nearly_impossible = impossible / 2;

// x in units of 2^-32, rounded towards zero. NaN becomes impossible.
template <typename Real>
inline int64_t fixed_point(Real x, Real greatest) {
  constexpr Real least = impossible;
  Real scaled = x * Real(int64_t(1) << 32);
  scaled = scaled > least ? scaled : least;
  scaled = scaled < greatest ? scaled : greatest;
  return int64_t(scaled);
}

// How a frame's path came into a pair's states: 4 bits. Without a bit set, each
// stayed where it was.
enum Move : uint64_t {
  to_blank = 1, // from the label before
  step = 2, // to the label, from its blank
  jump = 4, // to the label, from the label before
};
constexpr int move_bits = 4;
constexpr int moves_in_word = 64 / move_bits;

// The scores of the best paths to the states of a frame.
struct States {
  int64_t* blank; // (S + 1)
  int64_t* label; // (S + 1), and impossible before the first and as the last
};

// One frame of pairs [begin, end). On ties a path would rather stay than step,
// and rather step than jump. `jumping` is 0, or impossible where a label cannot
// be jumped to; `moves` are the pairs' words, `shift` is the frame's place in
// them.
void viterbi_step(
    int64_t begin,
    int64_t end,
    const int64_t* __restrict jumping,
    States previous,
    int64_t blank_score,
    const int64_t* __restrict label_score,
    States next,
    uint64_t* __restrict moves,
    int shift) {
  const int64_t* __restrict blanks = previous.blank;
  const int64_t* __restrict labels = previous.label;
  int64_t* __restrict next_blanks = next.blank;
  int64_t* __restrict next_labels = next.label;
  const uint64_t others = ~(uint64_t(15) << shift);
  for (int64_t i = begin; i < end; ++i) {
    int64_t left = labels[i - 1];
    int64_t blank = blanks[i];
    int64_t label = labels[i];
    int64_t jumped = left + jumping[i];
    int64_t stepped = larger(label, blank);
    uint64_t move = (left > blank ? to_blank : 0) | (blank > label ? step : 0) |
        (jumped > stepped ? jump : 0);
    next_blanks[i] = larger(larger(blank, left) + blank_score, impossible);
    next_labels[i] =
        larger(larger(stepped, jumped) + label_score[i], impossible);
    moves[i] = (moves[i] & others) | move << shift;
  }
}

constexpr int64_t words(int64_t frames) {
  return (frames + moves_in_word - 1) / moves_in_word;
}

// The lattice of one sequence, over memory from the workspace.
template <typename In>
class Lattice {
 public:
  using Real = typename Computing<In>::Real;

  Lattice(const Sequence& sequence, std::byte* memory)
      : sequence_(sequence),
        T_(sequence.frames),
        C_(sequence.classes),
        S_(sequence.target_length) {
    Workspace workspace(memory);
    row_ = workspace.take<Real>(C_ > S_ ? C_ : S_);
    normalisers_ = workspace.take<Normaliser>(T_);
    offsets_ = workspace.take<int64_t>(S_);
    jumping_ = workspace.take<int64_t>(S_ + 1);
    label_score_ = workspace.take<int64_t>(S_ + 1);
    for (States* states : {&best_, &next_}) {
      states->blank = workspace.take<int64_t>(S_ + 1);
      states->label = workspace.take<int64_t>(S_ + 2) + 1;
    }
    moves_ = workspace.take<uint64_t>(words(T_) * (S_ + 1));

    const int32_t* labels = sequence.labels;
    for (int64_t i = 0; i < S_; ++i) {
      offsets_[i] = labels[i] * sequence.class_stride;
      // A blank between equal labels cannot be skipped.
      jumping_[i] = i > 0 && labels[i] != labels[i - 1] ? 0 : impossible;
    }
    jumping_[S_] = impossible;
    label_score_[S_] = impossible;
    for (States states : {best_, next_}) {
      states.label[-1] = impossible;
      for (int64_t i = 0; i <= S_; ++i) {
        states.blank[i] = impossible;
        states.label[i] = impossible;
      }
    }
    greatest_ = -nearly_impossible;
    if (!sequence.with_logits) {
      for (int64_t frames = T_ - 1; frames > 0; frames /= 2) {
        greatest_ /= 2;
      }
    }
    // Before the first frame a path is at the first blank.
    best_.blank[0] = 0;
  }

  void align(int32_t* alignment, Real* scores) {
    bool valid = true;
    for (int64_t t = 0; t < T_; ++t) {
      int64_t offset = 0;
      if (sequence_.with_logits) {
        const In* following = frame(t + 1 < T_ ? t + 1 : t);
        normalisers_[t] = normaliser(number_row(t), following, C_);
        valid &= is_valid(normalisers_[t].sum);
        offset = fixed_point<Real>(normalisers_[t].max, -nearly_impossible);
      }
      valid &= read_scores(t, offset);
      // Each frame adds at most one label, after the start and before the end.
      int64_t begin = larger<int64_t>(0, S_ - (T_ - t));
      int64_t end = t < S_ ? t + 1 : S_ + 1;
      viterbi_step(
          begin,
          end,
          jumping_,
          best_,
          blank_score_,
          label_score_,
          next_,
          moves_ + t / moves_in_word * (S_ + 1),
          move_bits * (t % moves_in_word));
      std::swap(best_, next_);
    }

    // A path ends in the last label or the blank after it.
    int64_t i = S_;
    bool in_label = S_ > 0 && best_.label[S_ - 1] >= best_.blank[S_];
    int64_t score = in_label ? best_.label[--i] : best_.blank[i];
    if (!valid || score <= nearly_impossible) {
      for (int64_t t = 0; t < T_; ++t) {
        alignment[t] = sequence_.blank;
        scores[t] = valid ? -std::numeric_limits<Real>::infinity()
                          : std::numeric_limits<Real>::quiet_NaN();
      }
      return;
    }
    for (int64_t t = T_ - 1; t >= 0; --t) {
      alignment[t] = in_label ? sequence_.labels[i] : sequence_.blank;
      scores[t] = log_probability(t, alignment[t]);
      uint64_t word = moves_[t / moves_in_word * (S_ + 1) + i];
      uint64_t move = word >> move_bits * (t % moves_in_word);
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
  // Neither NaN nor +inf.
  static bool is_valid(Real x) {
    return x < std::numeric_limits<Real>::infinity();
  }

  const In* frame(int64_t t) const {
    return static_cast<const In*>(sequence_.log_probs) +
        t * sequence_.frame_stride;
  }

  // Frame t's scores side by side, as Real.
  const Real* number_row(int64_t t) {
    const In* x = frame(t);
    for (int64_t c = 0; c < C_; ++c) {
      row_[c] = number(x[c * sequence_.class_stride]);
    }
    return row_;
  }

  // The scores of the blank and the labels in frame t, less an offset that is
  // at least as great. False where one is NaN or +inf.
  bool read_scores(int64_t t, int64_t offset) {
    // Frames lie too far apart for the machine to look ahead by itself.
    constexpr int64_t ahead = 16;
    const In* x = frame(t);
    const In* following = frame(t + ahead < T_ ? t + ahead : t);
    for (int64_t i = 0; i < S_; ++i) {
      __builtin_prefetch(following + offsets_[i], 0, 2);
      row_[i] = number(x[offsets_[i]]);
    }
    Real blank = number(x[sequence_.blank * sequence_.class_stride]);
    int64_t valid = is_valid(blank);
    for (int64_t i = 0; i < S_; ++i) {
      valid &= is_valid(row_[i]);
      label_score_[i] =
          larger(fixed_point(row_[i], greatest_) - offset, impossible);
    }
    blank_score_ = larger(fixed_point(blank, greatest_) - offset, impossible);
    return valid != 0;
  }

  Real log_probability(int64_t t, int32_t c) const {
    Real x = number(frame(t)[c * sequence_.class_stride]);
    if (sequence_.with_logits) {
      return x - normalisers_[t].max - std::log(normalisers_[t].sum);
    }
    return x;
  }

  const Sequence& sequence_;
  const int64_t T_;
  const int64_t C_;
  const int64_t S_;
  Real* row_; // (max(C, S)) a frame, or its labels
  Normaliser* normalisers_; // (T) of logits
  int64_t* offsets_; // (S) of the labels' scores in a frame, in elements
  int64_t* jumping_; // (S + 1) what is added to a jump to a label
  int64_t* label_score_; // (S + 1)
  int64_t blank_score_;
  Real greatest_; // of a frame's scores
  States best_;
  States next_;
  uint64_t* moves_; // (T / 16, S + 1) sixteen frames' moves in a word
};

template <typename In>
void align(
    const Sequence& sequence,
    int32_t* alignment,
    void* scores,
    std::byte* workspace) {
  using Real = typename Computing<In>::Real;
  Lattice<In>(sequence, workspace).align(alignment, static_cast<Real*>(scores));
}

// An upper bound: less than a dozen rows, each begun on a cache line.
template <typename In>
size_t workspace_bytes(int frames, int classes, int max_target_length) {
  size_t row = (max_target_length + 2) * sizeof(int64_t);
  return classes * sizeof(double) + frames * sizeof(Normaliser) + 8 * row +
      words(frames) * row + 1024;
}

template <typename In>
constexpr mlx_ctc::cpu::Viterbi viterbi_for = {align<In>, workspace_bytes<In>};

} // namespace

namespace mlx_ctc::cpu::MLX_CTC_ISA {

extern const Viterbi viterbi_table[] = {
    viterbi_for<Half>,
    viterbi_for<BFloat>,
    viterbi_for<float>,
    viterbi_for<double>};

} // namespace mlx_ctc::cpu::MLX_CTC_ISA
