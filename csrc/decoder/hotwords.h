// Label sequences that are worth a bonus wherever a labelling has them: the
// automaton of Aho and Corasick (1975), whose states are the beginnings of the
// sequences.
#pragma once

#include <utility>
#include <vector>

#include "decoder/scorers.h"

namespace mlx_ctc {

// A bonus that came at the last label would come too late: the beam would have
// lost the prefix. So a state has its share of the bonus already, in proportion
// to the labels that have matched. It is given back if the match breaks off, or
// at the end, so that a labelling has in all the bonus of each occurrence.
class Hotwords {
 public:
  struct Step {
    int state;
    double bonus;
  };

  // Labels within [0, C), and at least one in each sequence.
  Hotwords(const std::vector<std::pair<Labels, double>>& bonuses, int C);

  bool has(int label) const {
    return has_[label];
  }

  // The step from a state by a label. The first state is 0.
  Step step(int state, int label) const;

  // The greatest bonus of any step from a state.
  double most(int state) const {
    return nodes_[state].most;
  }

  // What is added to the score if the sequence ends in this state.
  double end(int state) const {
    return -nodes_[state].share;
  }

 private:
  // A beginning of a sequence.
  struct Node {
    std::vector<std::pair<int, int>> children; // label and node, in order
    int shorter = 0; // the longest of its own ends that is a beginning too
    double complete = 0; // the bonuses of all sequences that end here
    double share = 0; // of those that go on, for the labels so far
    double most = 0;
  };

  int child(int node, int label) const; // -1 if there is none
  int next(int state, int label) const;
  void add(const Labels& labels, double bonus);
  void link();
  double greatest_after(int state) const;

  std::vector<char> has_; // (C) whether any sequence has the label
  std::vector<int> first_; // (C) the child of node 0, or -1
  std::vector<Node> nodes_;
};

} // namespace mlx_ctc
