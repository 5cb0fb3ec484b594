#include "cpu/batch.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

#include "arguments.h"

namespace mlx_ctc::cpu {

namespace {

Element element_of(mx::Dtype dtype) {
  switch (dtype) {
    case mx::float16:
      return Element::float16;
    case mx::bfloat16:
      return Element::bfloat16;
    case mx::float64:
      return Element::float64;
    default:
      return Element::float32;
  }
}

} // namespace

Batch::Batch(
    const char* op,
    const std::vector<mx::array>& inputs,
    int blank,
    bool with_logits)
    : T(inputs[0].shape(0)),
      N(inputs[0].shape(1)),
      C(inputs[0].shape(2)),
      S(inputs[1].shape(1)),
      element(element_of(inputs[0].dtype())),
      op_(op),
      log_probs_(inputs[0]),
      blank_(blank),
      with_logits_(with_logits),
      input_lengths_(read_lengths(inputs[2], "input_lengths", T)),
      target_lengths_(read_lengths(inputs[3], "target_lengths", S)),
      labels_(read_labels(inputs[1])) {}

Sequence Batch::sequence(int n) const {
  auto strides = log_probs_.strides();
  return {
      log_probs_.data<char>() + n * strides[1] * int64_t(log_probs_.itemsize()),
      strides[0],
      strides[2],
      input_lengths_[n],
      C,
      labels_.data() + int64_t(n) * S,
      target_lengths_[n],
      blank_,
      with_logits_};
}

std::vector<int32_t>
Batch::read_lengths(const mx::array& lengths, const char* name, int max) const {
  const int32_t* values = lengths.data<int32_t>();
  std::vector<int32_t> result(N);
  for (int n = 0; n < N; ++n) {
    int32_t length = values[n * lengths.strides(0)];
    if (length < 0 || length > max) {
      fail(
          op_,
          "Expected ",
          name,
          "[",
          n,
          "] in [0, ",
          max,
          "]",
          length == wrong_total
              ? " and 1-D targets of sum(target_lengths) labels"
              : "",
          " but got ",
          length,
          ".");
    }
    result[n] = length;
  }
  return result;
}

// Only the first target_length labels of a row are read.
std::vector<int32_t> Batch::read_labels(const mx::array& targets) const {
  const int32_t* values = targets.data<int32_t>();
  std::vector<int32_t> result(int64_t(N) * S);
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t s = 0; s < target_lengths_[n]; ++s) {
      int32_t label = values[n * targets.strides(0) + s * targets.strides(1)];
      if (label < 0 || label >= C) {
        fail(
            op_,
            "Expected targets[",
            n,
            ", ",
            s,
            "] in [0, ",
            C,
            ") but got ",
            label,
            ".");
      }
      result[n * S + s] = label;
    }
  }
  return result;
}

std::vector<int> Batch::longest_first() const {
  std::vector<int> order(N);
  std::iota(order.begin(), order.end(), 0);
  auto is_longer = [this](int a, int b) {
    return input_lengths_[a] > input_lengths_[b];
  };
  std::stable_sort(order.begin(), order.end(), is_longer);
  return order;
}

std::vector<int> Batch::shares(const std::vector<int>& order) const {
  // What a sequence costs: its frames, and what it costs without any.
  auto cost = [this](int n) { return int64_t(input_lengths_[n]) + 16; };
  int64_t left = 0;
  for (int n : order) {
    left += cost(n);
  }
  std::vector<int> begins = {0};
  int64_t share = 0;
  for (int i = 0; i < N; ++i) {
    share += cost(order[i]);
    if (share * 2 * max_threads() >= left || i + 1 == N) {
      begins.push_back(i + 1);
      left -= share;
      share = 0;
    }
  }
  return begins;
}

} // namespace mlx_ctc::cpu
