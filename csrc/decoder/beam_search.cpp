#include "decoder/beam_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>
#include <utility>

#include "decoder/best_class.h"
#include "decoder/validity.h"
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

// A labelling of the frames so far: a node of the tree of all of them, whose
// labels are those on the way from the root. Scores are log-probabilities,
// summed over those of its paths that the search has kept.
struct Prefix {
  int parent;
  int label; // the last; -1 in the root
  double bonus; // what was added for the last label
  int hotword; // the state of the hotwords
  bool active = false; // in the beam
  // Its children in the beam, as a list.
  int child = -1;
  int sibling = -1;
  double in_blank = -infinity; // paths that end in a blank
  double in_label = -infinity; // and in the last label
  double score = -infinity; // of both
};

// A candidate for the beam after a frame: a prefix of the beam before it,
// unchanged or extended by one label.
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

template <typename Real>
class Search {
 public:
  Search(
      const Frames<Real>& frames,
      const BeamOptions& options,
      const Scorers& scorers,
      const Hotwords* hotwords)
      : frames_(frames),
        C_(frames.C),
        options_(options),
        scorers_(scorers),
        hotwords_(hotwords),
        taken_(frames.C, 0) {
    prefixes_.push_back({.parent = -1, .label = -1, .bonus = 0, .hotword = 0});
    set(0, 0, -infinity);
    beam_.push_back(0);
  }

  // One frame further.
  void advance(const Real* x) {
    if (beam_.empty()) {
      return;
    }
    candidates_.clear();
    best_ = floor_ = -infinity;
    for (int p : beam_) {
      keep(p, x);
    }
    // A further label has to get past the worst of the prefixes kept.
    raise_floor();
    choose_labels(x);
    list_children();
    for (int p : beam_) {
      extend(p, x);
    }
    raise_floor();
    replace_beam();
  }

  // Those of all frames; not all of them if `stop` becomes true.
  std::vector<Hypothesis> best(const std::atomic<bool>& stop) {
    auto ends = best_ends();
    Rescorer<Real> rescorer(frames_, options_.blank);
    if (options_.rescore) {
      rescore(ends, rescorer, stop);
    }
    std::vector<Hypothesis> hypotheses;
    for (auto [p, score] : ends) {
      if (stop) {
        break;
      }
      auto labels = spell(p);
      auto times = rescorer.times(labels);
      hypotheses.push_back({std::move(labels), score, std::move(times)});
    }
    return hypotheses;
  }

 private:
  // A prefix as the labelling of all frames.
  struct End {
    int prefix;
    double score;
  };

  void set(int p, double in_blank, double in_label) {
    auto& prefix = prefixes_[p];
    prefix.active = true;
    prefix.in_blank = in_blank;
    prefix.in_label = in_label;
    prefix.score = log_sum_exp(in_blank, in_label);
  }

  // The score of the paths of a prefix that `label` can extend. If it equals
  // the prefix's last label, only paths that end in a blank: without one it
  // would be merged with the last.
  double before(const Prefix& prefix, int label) const {
    return prefix.label == label ? prefix.in_blank : prefix.score;
  }

  // Keeps a prefix whose paths emit the blank or repeat the last label. If its
  // parent is in the beam, the parent's paths that emit this label are added.
  void keep(int p, const Real* x) {
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

  void extend(int p, const Real* x) {
    // Children in the beam have had their part of this prefix.
    ++stamp_;
    for (int q = prefixes_[p].child; q >= 0; q = prefixes_[q].sibling) {
      taken_[prefixes_[q].label] = stamp_;
    }
    double most = most_bonus(p);
    for (int c : labels_) {
      // The labels that follow are less probable still.
      if (prefixes_[p].score + x[c] + most < floor_) {
        break;
      }
      double score = before(prefixes_[p], c) + x[c];
      if (score == -infinity || taken_[c] == stamp_) {
        continue;
      }
      double bonus = bonus_of(p, c);
      add({score + bonus, p, c, bonus, -infinity, score + bonus});
    }
  }

  void add(Candidate candidate) {
    if (candidate.score == -infinity || candidate.score < floor_) {
      return;
    }
    candidate.order = order_++;
    best_ = std::max(best_, candidate.score);
    candidates_.push_back(candidate);
    if (candidates_.size() >= 4 * size_t(options_.beam_width)) {
      raise_floor();
    }
  }

  // Leaves the best candidates, in any order, and sets the floor by them.
  void raise_floor() {
    size_t width = options_.beam_width;
    floor_ = std::max(floor_, best_ - options_.beam_threshold);
    if (candidates_.size() >= width) {
      auto worst = candidates_.begin() + (width - 1);
      std::nth_element(candidates_.begin(), worst, candidates_.end());
      candidates_.resize(width);
      floor_ = std::max(floor_, candidates_.back().score);
    }
  }

  // Makes the candidates the beam.
  void replace_beam() {
    std::erase_if(candidates_, [this](const auto& candidate) {
      return candidate.score < floor_;
    });
    std::sort(candidates_.begin(), candidates_.end());
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
    std::erase_if(rows_, [this](const auto& row) {
      return !prefixes_[row.first].active;
    });
  }

  // The labels to try in a frame, the most probable first. Those of hotwords
  // are tried down to where no bonus could help.
  void choose_labels(const Real* x) {
    auto more_probable = [x](int a, int b) {
      return x[a] != x[b] ? x[a] > x[b] : a < b;
    };
    size_t most = most_labels();
    Real least = least_to_try(x, false);
    Real least_hot = hotwords_ ? least_to_try(x, true) : least;
    Real past = -std::numeric_limits<Real>::infinity();
    labels_.clear();
    hot_labels_.clear();
    auto leave_the_best = [&] {
      auto worst = labels_.begin() + (most - 1);
      std::nth_element(labels_.begin(), worst, labels_.end(), more_probable);
      labels_.resize(most);
      past = x[labels_.back()];
    };
    for (int64_t begin = 0; begin < C_; begin += block) {
      int64_t end = std::min(begin + block, C_);
      if (!any_at_least(least_hot, x + begin, end - begin)) {
        continue;
      }
      for (int64_t c = begin; c < end; ++c) {
        if (c == options_.blank || x[c] < least_hot || x[c] == -infinity) {
          continue;
        }
        if (hotwords_ && hotwords_->has(c)) {
          hot_labels_.push_back(c);
        } else if (x[c] >= least && x[c] > past) {
          labels_.push_back(c);
        }
      }
      if (labels_.size() > 2 * most + block) {
        leave_the_best();
      }
    }
    if (labels_.size() > most) {
      leave_the_best();
    }
    labels_.insert(labels_.end(), hot_labels_.begin(), hot_labels_.end());
    std::sort(labels_.begin(), labels_.end(), more_probable);
    if (labels_.size() > size_t(options_.max_labels)) {
      labels_.resize(options_.max_labels);
    }
  }

  // How many labels that are in no hotword to try. Without scorers, which
  // change their order, a prefix cannot have more than `beam_width` of its
  // extensions in the beam. Passed over are its last label and its children in
  // the beam.
  size_t most_labels() const {
    int64_t most = options_.max_labels;
    return scorers_ ? most
                    : std::min(most, 2 * int64_t(options_.beam_width) + 1);
  }

  // The greatest bonus that a label after a prefix can have.
  double most_bonus(int p) const {
    if (scorers_) {
      return infinity;
    }
    return hotwords_ ? hotwords_->most(prefixes_[p].hotword) : 0;
  }

  // The least score in frame x with which a label is tried. With less, the
  // label_threshold forbids it, or it stays below the floor after every prefix,
  // if `with_bonus` also with the greatest bonus of a hotword.
  Real least_to_try(const Real* x, bool with_bonus) const {
    double least = -infinity;
    if (options_.label_threshold < infinity) {
      least = greatest(x, C_) - options_.label_threshold;
    }
    double best_prefix = -infinity;
    for (int p : beam_) {
      double bonus = with_bonus || scorers_ ? most_bonus(p) : 0;
      best_prefix = std::max(best_prefix, prefixes_[p].score + bonus);
    }
    // Rounding must not lose a label that would stand at the floor.
    double rounding = 1e-15 * (std::abs(floor_) + std::abs(best_prefix));
    if (rounding < infinity) {
      least = std::max(least, floor_ - best_prefix - rounding);
    }
    Real rounded = least;
    return rounded < least ? std::nextafter(rounded, Real(infinity)) : rounded;
  }

  static bool any_at_least(Real least, const Real* x, int64_t n) {
    int any = 0;
    for (int64_t i = 0; i < n; ++i) {
      any |= x[i] >= least;
    }
    return any != 0;
  }

  int64_t key(int p, int label) const {
    return p * C_ + label;
  }

  // A prefix that left the beam comes back as the same node: prefixes that
  // begin with it may still be in.
  int child(int p, int label, double bonus) {
    auto [found, is_new] = children_.emplace(key(p, label), prefixes_.size());
    if (is_new) {
      int state = prefixes_[p].hotword;
      int hotword = hotwords_ ? hotwords_->step(state, label).state : 0;
      prefixes_.push_back(
          {.parent = p, .label = label, .bonus = bonus, .hotword = hotword});
    }
    return found->second;
  }

  // What is added when a label follows a prefix.
  double bonus_of(int p, int label) {
    double bonus = scorers_ ? score_of(p, label) : 0;
    if (hotwords_) {
      bonus += hotwords_->step(prefixes_[p].hotword, label).bonus;
    }
    return bonus;
  }

  // And when it ends.
  double bonus_of_end(int p) {
    double bonus = scorers_ ? score_of(p, options_.blank) : 0;
    return hotwords_ ? bonus + hotwords_->end(prefixes_[p].hotword) : bonus;
  }

  // What a scorer says, where the blank stands for the end.
  double score_of(int p, int label) {
    if (scorers_.prefix_scorer) {
      auto [row, is_new] = rows_.try_emplace(p);
      if (is_new) {
        row->second = scorers_.prefix_scorer(spell(p));
      }
      return row->second[label];
    }
    auto [found, is_new] = bonuses_.emplace(key(p, label), 0);
    if (is_new) {
      int asked = label == options_.blank ? -1 : label;
      found->second = scorers_.scorer(spell(p), asked);
    }
    return found->second;
  }

  // What is added to a labelling in all.
  double bonus_of_all(int p) {
    double bonus = bonus_of_end(p);
    for (; p > 0; p = prefixes_[p].parent) {
      bonus += prefixes_[p].bonus;
    }
    return bonus;
  }

  std::vector<int> spell(int p) const {
    std::vector<int> labels;
    for (; p > 0; p = prefixes_[p].parent) {
      labels.push_back(prefixes_[p].label);
    }
    std::reverse(labels.begin(), labels.end());
    return labels;
  }

  // The node of a labelling; nothing if a scorer rules it out.
  std::optional<int> node_of(const Labels& labels) {
    int p = 0;
    for (int label : labels) {
      double bonus = bonus_of(p, label);
      if (bonus == -infinity) {
        return std::nullopt;
      }
      p = child(p, label, bonus);
    }
    return p;
  }

  std::vector<End> best_ends() {
    std::vector<End> ends;
    ends.reserve(beam_.size());
    for (int p : beam_) {
      ends.push_back({p, prefixes_[p].score + bonus_of_end(p)});
    }
    leave_nbest(ends);
    return ends;
  }

  // Gives the ends the sum of all their paths. The labelling of the best path
  // is one of them, so that the best is never less probable.
  void rescore(
      std::vector<End>& ends,
      Rescorer<Real>& rescorer,
      const std::atomic<bool>& stop) {
    auto greedy = node_of(greedy_labels(frames_, options_.blank));
    auto is_greedy = [greedy](const End& end) { return end.prefix == greedy; };
    if (greedy && std::none_of(ends.begin(), ends.end(), is_greedy)) {
      ends.push_back({*greedy, 0});
    }
    for (auto& [p, score] : ends) {
      score = bonus_of_all(p);
      if (score > -infinity && !stop) {
        score += rescorer.log_probability(spell(p));
      }
    }
    leave_nbest(ends);
  }

  void leave_nbest(std::vector<End>& ends) const {
    std::erase_if(ends, [](const End& end) { return end.score == -infinity; });
    std::stable_sort(ends.begin(), ends.end(), [](auto& a, auto& b) {
      return a.score > b.score;
    });
    if (ends.size() > size_t(options_.nbest)) {
      ends.erase(ends.begin() + options_.nbest, ends.end());
    }
  }

  static constexpr int64_t block = 64; // classes looked at together

  const Frames<Real>& frames_;
  const int64_t C_;
  const BeamOptions& options_;
  const Scorers& scorers_;
  const Hotwords* hotwords_; // if there are any
  std::vector<Prefix> prefixes_; // the first is the root
  std::vector<int> beam_; // the best first
  std::unordered_map<int64_t, int> children_;
  std::unordered_map<int64_t, double> bonuses_;
  std::unordered_map<int, std::vector<double>> rows_; // of the beam's prefixes
  std::vector<Candidate> candidates_; // for the next frame
  std::vector<int> labels_; // to try in this frame
  std::vector<int> hot_labels_; // those of hotwords
  std::vector<int64_t>
      taken_; // (C) stamp_ if the label has a child in the beam
  int64_t stamp_ = 0; // of the current call of extend()
  double best_; // of the candidates so far
  double floor_; // candidates below cannot get in
  int64_t order_ = 0;
};

template <typename Real>
std::vector<Hypothesis> search(
    const Frames<Real>& frames,
    const BeamOptions& options,
    const Scorers& scorers,
    const Hotwords* hotwords,
    const std::atomic<bool>& stop) {
  if (!all_below_infinity(frames)) {
    return {{{}, std::numeric_limits<double>::quiet_NaN(), {}}};
  }
  Search<Real> search(frames, options, scorers, hotwords);
  for (int64_t t = 0; t < frames.T && !stop; ++t) {
    search.advance(frames[t]);
  }
  return search.best(stop);
}

} // namespace

std::vector<std::vector<Hypothesis>> beam_search(
    const Scores& scores,
    const std::vector<int>& lengths,
    const BeamOptions& options,
    const Scorers& scorers,
    const Hotwords* hotwords,
    const std::atomic<bool>& stop) {
  int64_t N = lengths.size();
  std::vector<std::vector<Hypothesis>> results(N);
  auto search_one = [&](int64_t n, int) {
    auto search_in = [&](const auto& frames) {
      results[n] = search(frames, options, scorers, hotwords, stop);
    };
    if (scores.is_double) {
      search_in(frames_of<double>(scores, n, lengths[n]));
    } else {
      search_in(frames_of<float>(scores, n, lengths[n]));
    }
  };
  if (scorers) {
    for (int64_t n = 0; n < N; ++n) {
      search_one(n, 0);
    }
  } else {
    cpu::parallel_for(N, cpu::max_threads(), search_one);
  }
  return results;
}

} // namespace mlx_ctc
