#include "decoder/hotwords.h"

#include <algorithm>

namespace mlx_ctc {

Hotwords::Hotwords(const std::vector<std::pair<Labels, double>>& bonuses, int C)
    : has_(C), first_(C, -1), nodes_(1) {
  for (const auto& [labels, bonus] : bonuses) {
    add(labels, bonus);
  }
  link();
}

void Hotwords::add(const Labels& labels, double bonus) {
  int node = 0;
  double matched = 0;
  for (int label : labels) {
    has_[label] = true;
    int found = child(node, label);
    if (found < 0) {
      found = nodes_.size();
      nodes_.emplace_back();
      auto& children = nodes_[node].children;
      std::pair<int, int> entry = {label, found};
      children.insert(
          std::upper_bound(children.begin(), children.end(), entry), entry);
      if (node == 0) {
        first_[label] = found;
      }
    }
    node = found;
    ++matched;
    if (matched < labels.size()) {
      double share = bonus * matched / labels.size();
      nodes_[node].share = std::max(nodes_[node].share, share);
    }
  }
  nodes_[node].complete += bonus;
}

// Sets what depends on shorter beginnings, the shortest first.
void Hotwords::link() {
  std::vector<int> order = {0};
  for (size_t i = 0; i < order.size(); ++i) {
    int node = order[i];
    for (auto [label, child] : nodes_[node].children) {
      int shorter = node == 0 ? 0 : next(nodes_[node].shorter, label);
      nodes_[child].shorter = shorter;
      nodes_[child].complete += nodes_[shorter].complete;
      nodes_[child].share =
          std::max(nodes_[child].share, nodes_[shorter].share);
      order.push_back(child);
    }
  }
  for (int node : order) {
    nodes_[node].most = greatest_after(node) - nodes_[node].share;
  }
}

// The greatest bonus and share of a state that one label leads to.
double Hotwords::greatest_after(int state) const {
  double greatest = 0; // of node 0
  for (int node = state;; node = nodes_[node].shorter) {
    for (auto [label, child] : nodes_[node].children) {
      greatest =
          std::max(greatest, nodes_[child].complete + nodes_[child].share);
    }
    if (node == 0) {
      return greatest;
    }
  }
}

int Hotwords::child(int node, int label) const {
  if (node == 0) {
    return first_[label];
  }
  const auto& children = nodes_[node].children;
  auto found = std::lower_bound(
      children.begin(), children.end(), std::pair<int, int>(label, 0));
  return found != children.end() && found->first == label ? found->second : -1;
}

int Hotwords::next(int state, int label) const {
  while (true) {
    int found = child(state, label);
    if (found >= 0) {
      return found;
    }
    if (state == 0) {
      return 0;
    }
    state = nodes_[state].shorter;
  }
}

Hotwords::Step Hotwords::step(int state, int label) const {
  int to = next(state, label);
  return {to, nodes_[to].complete + nodes_[to].share - nodes_[state].share};
}

} // namespace mlx_ctc
