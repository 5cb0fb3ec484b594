#include "decoder/beam_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "system/parallel.h"

namespace mlx_ctc {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

double log_sum_exp(double a, double b) {
  double greater = std::max(a, b);
  if (greater == -infinity) {
    return greater;
  }
  return greater + std::log1p(std::exp(std::min(a, b) - greater));
}

// A labelling of the frames so far, as a node of the tree of all of them.
// Scores are log-probabilities, summed over the paths that it is made of.
struct Prefix {
  int parent;
  int label; // the last; -1 in the root
  double bonus; // what the scorer added for the last label
  bool active = false; // in the beam
  // Its children in the beam, as a list.
  int child = -1;
  int sibling = -1;
  double in_blank = -infinity; // paths that end in a blank
  double in_label = -infinity; // and in the last label
  double score = -infinity; // of both
};

// What may be in the beam after a frame: a prefix that was, or one of them and
// a further label.
struct Candidate {
  double score;
  int prefix; // the parent, for a further label
  int label; // -1 without one
  double bonus;
  double in_blank;
  double in_label;
  int64_t order = 0; // decides between equals

  bool operator<(const Candidate& other) const {
    return score != other.score ? score > other.score : order < other.order;
  }
};

class Search {
 public:
  Search(int64_t C, const BeamOptions& options, const Scorer& scorer)
      : C_(C), options_(options), scorer_(scorer), taken_(C, 0) {
    prefixes_.push_back({.parent = -1, .label = -1, .bonus = 0});
    set(0, 0, -infinity);
    beam_.push_back(0);
  }

  // One frame further.
  void advance(const float* x) {
    if (beam_.empty()) {
      return;
    }
    candidates_.clear();
    floor_ = -infinity;
    for (int p : beam_) {
      keep(p, x);
    }
    // A further label has to get past the worst of the prefixes kept.
    if (candidates_.size() >= size_t(options_.beam_width)) {
      select();
    }
    choose_labels(x);
    list_children();
    for (int p : beam_) {
      extend(p, x);
    }
    select();

    for (int p : beam_) {
      prefixes_[p].active = false;
    }
    beam_.clear();
    for (const auto& candidate : candidates_) {
      int p = candidate.prefix;
      if (candidate.label >= 0) {
        p = child(p, candidate.label, candidate.bonus);
      }
      set(p, candidate.in_blank, candidate.in_label);
      beam_.push_back(p);
    }
  }

  std::vector<Hypothesis> best() const {
    std::vector<Hypothesis> hypotheses;
    for (int p : beam_) {
      auto labels = spell(p);
      double end = scorer_ ? scorer_(labels, -1) : 0;
      double score = prefixes_[p].score + end;
      if (score > -infinity) {
        hypotheses.push_back({std::move(labels), score});
      }
    }
    std::stable_sort(
        hypotheses.begin(), hypotheses.end(), [](auto& a, auto& b) {
          return a.score > b.score;
        });
    if (hypotheses.size() > size_t(options_.nbest)) {
      hypotheses.resize(options_.nbest);
    }
    return hypotheses;
  }

 private:
  void set(int p, double in_blank, double in_label) {
    auto& prefix = prefixes_[p];
    prefix.active = true;
    prefix.in_blank = in_blank;
    prefix.in_label = in_label;
    prefix.score = log_sum_exp(in_blank, in_label);
  }

  // The paths of a prefix to which a label may be added: without a blank
  // between, an equal label would be the same one.
  double before(const Prefix& prefix, int label) const {
    return prefix.label == label ? prefix.in_blank : prefix.score;
  }

  // Keeps a prefix whose paths emit the blank or repeat the last label. If its
  // parent is in the beam, the parent's paths that emit this label are added.
  void keep(int p, const float* x) {
    const auto& prefix = prefixes_[p];
    double in_blank = prefix.score + x[options_.blank];
    double in_label = -infinity;
    if (prefix.label >= 0) {
      const auto& parent = prefixes_[prefix.parent];
      double joining = parent.active
          ? before(parent, prefix.label) + prefix.bonus
          : -infinity;
      in_label = x[prefix.label] + log_sum_exp(prefix.in_label, joining);
    }
    double score = log_sum_exp(in_blank, in_label);
    add({score, p, -1, 0, in_blank, in_label});
  }

  void list_children() {
    for (int p : beam_) {
      prefixes_[p].child = -1;
    }
    for (int p : beam_) {
      auto& prefix = prefixes_[p];
      if (prefix.parent >= 0) {
        auto& parent = prefixes_[prefix.parent];
        prefix.sibling = parent.child;
        parent.child = p;
      }
    }
  }

  void extend(int p, const float* x) {
    // Children in the beam have had their part of this prefix.
    ++stamp_;
    for (int q = prefixes_[p].child; q >= 0; q = prefixes_[q].sibling) {
      taken_[prefixes_[q].label] = stamp_;
    }
    for (int c : labels_) {
      // The labels that follow are less probable still.
      if (!scorer_ && prefixes_[p].score + x[c] < floor_) {
        break;
      }
      double score = before(prefixes_[p], c) + x[c];
      if (score == -infinity || taken_[c] == stamp_) {
        continue;
      }
      double bonus = scorer_ ? bonus_of(p, c) : 0;
      add({score + bonus, p, c, bonus, -infinity, score + bonus});
    }
  }

  void add(Candidate candidate) {
    if (candidate.score == -infinity || candidate.score < floor_) {
      return;
    }
    candidate.order = order_++;
    candidates_.push_back(candidate);
    if (candidates_.size() >= 4 * size_t(options_.beam_width)) {
      select();
    }
  }

  // Leaves the best candidates, in order.
  void select() {
    size_t width = options_.beam_width;
    if (candidates_.size() > width) {
      std::nth_element(
          candidates_.begin(), candidates_.begin() + width, candidates_.end());
      candidates_.resize(width);
    }
    std::sort(candidates_.begin(), candidates_.end());
    if (candidates_.empty()) {
      return;
    }
    double least = candidates_[0].score - options_.beam_threshold;
    while (candidates_.back().score < least) {
      candidates_.pop_back();
    }
    floor_ = std::max(floor_, least);
    if (candidates_.size() == width) {
      floor_ = std::max(floor_, candidates_.back().score);
    }
  }

  // The labels to try in a frame, the most probable first.
  void choose_labels(const float* x) {
    double best_prefix = -infinity;
    for (int p : beam_) {
      best_prefix = std::max(best_prefix, prefixes_[p].score);
    }
    double least = *std::max_element(x, x + C_) - options_.label_threshold;
    if (!scorer_) {
      least = std::max(least, floor_ - best_prefix);
    }
    labels_.clear();
    for (int c = 0; c < C_; ++c) {
      if (c != options_.blank && x[c] >= least && x[c] > -infinity) {
        labels_.push_back(c);
      }
    }
    auto more_probable = [x](int a, int b) {
      return x[a] != x[b] ? x[a] > x[b] : a < b;
    };
    if (labels_.size() > size_t(options_.max_labels)) {
      auto end = labels_.begin() + options_.max_labels;
      std::nth_element(labels_.begin(), end, labels_.end(), more_probable);
      labels_.erase(end, labels_.end());
    }
    std::sort(labels_.begin(), labels_.end(), more_probable);
  }

  int64_t key(int p, int label) const {
    return p * C_ + label;
  }

  // A prefix that left the beam comes back as the same node: prefixes that
  // begin with it may still be in.
  int child(int p, int label, double bonus) {
    auto [found, is_new] = children_.emplace(key(p, label), prefixes_.size());
    if (is_new) {
      prefixes_.push_back({.parent = p, .label = label, .bonus = bonus});
    }
    return found->second;
  }

  double bonus_of(int p, int label) {
    auto [found, is_new] = bonuses_.emplace(key(p, label), 0);
    if (is_new) {
      found->second = scorer_(spell(p), label);
    }
    return found->second;
  }

  std::vector<int> spell(int p) const {
    std::vector<int> labels;
    for (; p > 0; p = prefixes_[p].parent) {
      labels.push_back(prefixes_[p].label);
    }
    std::reverse(labels.begin(), labels.end());
    return labels;
  }

  const int64_t C_;
  const BeamOptions& options_;
  const Scorer& scorer_;
  std::vector<Prefix> prefixes_; // the first is the root
  std::vector<int> beam_; // the best first
  std::unordered_map<int64_t, int> children_;
  std::unordered_map<int64_t, double> bonuses_;
  std::vector<Candidate> candidates_; // for the next frame
  std::vector<int> labels_; // to try in this frame
  std::vector<int64_t>
      taken_; // (C) stamp_ if the label has a child in the beam
  int64_t stamp_ = 0; // of the current call of extend()
  double floor_; // candidates below cannot get in
  int64_t order_ = 0;
};

std::vector<Hypothesis> search(
    const float* log_probs,
    int64_t T,
    int64_t C,
    const BeamOptions& options,
    const Scorer& scorer,
    const std::atomic<bool>& stop) {
  // One comparison finds both NaN and +inf.
  auto is_valid = [](float x) {
    return x < std::numeric_limits<float>::infinity();
  };
  if (!std::all_of(log_probs, log_probs + T * C, is_valid)) {
    return {{{}, std::numeric_limits<double>::quiet_NaN()}};
  }
  Search search(C, options, scorer);
  for (int64_t t = 0; t < T && !stop; ++t) {
    search.advance(log_probs + t * C);
  }
  return stop ? std::vector<Hypothesis>() : search.best();
}

} // namespace

std::optional<Place> find_above(
    float most,
    const float* log_probs,
    int64_t T,
    int64_t C,
    const std::vector<int>& lengths) {
  auto is_above = [most](float x) {
    return x > most && x < std::numeric_limits<float>::infinity();
  };
  int64_t N = lengths.size();
  for (int64_t n = 0; n < N; ++n) {
    const float* begin = log_probs + n * T * C;
    const float* end = begin + lengths[n] * C;
    const float* found = std::find_if(begin, end, is_above);
    if (found != end) {
      int64_t i = found - begin;
      return Place{n, i / C, i % C, *found};
    }
  }
  return std::nullopt;
}

std::vector<std::vector<Hypothesis>> beam_search(
    const float* log_probs,
    int64_t T,
    int64_t C,
    const std::vector<int>& lengths,
    const BeamOptions& options,
    const Scorer& scorer,
    const std::atomic<bool>& stop) {
  int64_t N = lengths.size();
  std::vector<std::vector<Hypothesis>> results(N);
  auto search_one = [&](int64_t n, int) {
    results[n] =
        search(log_probs + n * T * C, lengths[n], C, options, scorer, stop);
  };
  if (scorer) {
    for (int64_t n = 0; n < N; ++n) {
      search_one(n, 0);
    }
  } else {
    cpu::parallel_for(N, search_one);
  }
  return results;
}

} // namespace mlx_ctc
