#include "ops/integers.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "mlx/backend/cuda/cuda.h"
#include "mlx/ops.h"
#include "ops/arguments.h"

namespace mlx_ctc {

namespace {

// Calls f with a pointer to the values, in their own type.
template <typename F>
auto with_values(const mx::array& a, F f) {
  switch (a.dtype()) {
    case mx::bool_:
      return f(a.data<bool>());
    case mx::int8:
      return f(a.data<int8_t>());
    case mx::int16:
      return f(a.data<int16_t>());
    case mx::int32:
      return f(a.data<int32_t>());
    case mx::int64:
      return f(a.data<int64_t>());
    case mx::uint8:
      return f(a.data<uint8_t>());
    case mx::uint16:
      return f(a.data<uint16_t>());
    case mx::uint32:
      return f(a.data<uint32_t>());
    case mx::uint64:
      return f(a.data<uint64_t>());
    default:
      throw std::logic_error("[mlx_ctc] Integers of this type are not read.");
  }
}

// A value of any integer type; one of uint64 that is too great, as the
// greatest.
template <typename T>
int64_t number(T value) {
  if constexpr (std::is_same_v<T, uint64_t>) {
    constexpr uint64_t greatest = std::numeric_limits<int64_t>::max();
    return static_cast<int64_t>(std::min(value, greatest));
  } else {
    return value;
  }
}

bool is_outside(int64_t value, int64_t end) {
  return static_cast<uint64_t>(value) >= static_cast<uint64_t>(end);
}

// Of an array (N).
std::vector<int64_t> values_of(const mx::array& a) {
  return with_values(a, [&](auto* values) {
    std::vector<int64_t> result(a.size());
    for (size_t i = 0; i < result.size(); ++i) {
      result[i] = number(values[int64_t(i) * a.strides(0)]);
    }
    return result;
  });
}

// A compiler makes vector instructions of this where `stride` is a constant.
template <typename T>
bool all_within(const T* values, int64_t count, int64_t stride, int64_t end) {
  bool outside = false;
  for (int64_t i = 0; i < count; ++i) {
    outside |= is_outside(number(values[i * stride]), end);
  }
  return !outside;
}

template <typename T>
bool contains(
    const T* values,
    int64_t count,
    int64_t stride,
    int64_t excluded) {
  bool found = false;
  for (int64_t i = 0; i < count; ++i) {
    found |= number(values[i * stride]) == excluded;
  }
  return found;
}

std::string position_text(const std::string& name, int64_t n, int64_t i) {
  return name + "[" + std::to_string(n) + ", " + std::to_string(i) + "]";
}

// The number of values in each row of an array (N, W) for which
// `counts(n, i, value)` is true. They have to come first: one that comes after
// another kind of value, which is at `end`, is reported by
// `refuse(n, i, end, value)`.
template <typename Counts, typename Refuse>
mx::array prefix_lengths(const mx::array& a, Counts counts, Refuse refuse) {
  std::vector<int64_t> lengths(a.shape(0));
  with_values(a, [&](auto* values) {
    for (int64_t n = 0; n < a.shape(0); ++n) {
      auto* row = values + n * a.strides(0);
      for (int64_t i = 0; i < a.shape(1); ++i) {
        int64_t value = number(row[i * a.strides(1)]);
        if (!counts(n, i, value)) {
          continue;
        }
        if (lengths[n] < i) {
          refuse(n, i, lengths[n], value);
        }
        ++lengths[n];
      }
    }
  });
  return mx::array(lengths.begin(), {a.shape(0)}, mx::int64);
}

// How many labels of each target equal the label before them.
std::vector<int64_t> repeats(
    const mx::array& targets,
    const std::vector<int64_t>& lengths) {
  return with_values(targets, [&](auto* values) {
    std::vector<int64_t> result(lengths.size());
    for (size_t n = 0; n < lengths.size(); ++n) {
      auto* row = values + int64_t(n) * targets.strides(0);
      for (int64_t s = 1; s < lengths[n]; ++s) {
        int64_t stride = targets.strides(1);
        result[n] += row[s * stride] == row[(s - 1) * stride];
      }
    }
    return result;
  });
}

} // namespace

bool is_known(const mx::array& a) {
  static const bool on_cuda = mx::cu::is_available();
  return !on_cuda && !a.is_tracer() && a.is_available();
}

void check_lengths(
    const std::string& op,
    const std::string& name,
    const mx::array& lengths,
    int64_t most) {
  auto values = values_of(lengths);
  for (size_t n = 0; n < values.size(); ++n) {
    if (is_outside(values[n], most + 1)) {
      fail(
          op,
          "Expected ",
          name,
          "[",
          n,
          "] in [0, ",
          most,
          "] but got ",
          values[n],
          ".");
    }
  }
}

void check_labels(
    const std::string& op,
    const mx::array& targets,
    const mx::array& lengths,
    int64_t C,
    int64_t excluded) {
  auto counts = values_of(lengths);
  with_values(targets, [&](auto* values) {
    int64_t stride = targets.strides(1);
    for (size_t n = 0; n < counts.size(); ++n) {
      auto* row = values + int64_t(n) * targets.strides(0);
      bool within = stride == 1 ? all_within(row, counts[n], 1, C)
                                : all_within(row, counts[n], stride, C);
      bool excludes = excluded < 0 ||
          !(stride == 1 ? contains(row, counts[n], 1, excluded)
                        : contains(row, counts[n], stride, excluded));
      if (within && excludes) {
        continue;
      }
      for (int64_t s = 0; s < counts[n]; ++s) {
        int64_t label = number(row[s * stride]);
        auto where = position_text("targets", n, s);
        if (is_outside(label, C)) {
          fail(op, "Expected ", where, " in [0, ", C, ") but got ", label, ".");
        }
        if (label == excluded) {
          fail(
              op,
              "Expected ",
              where,
              " other than the blank, which is ",
              excluded,
              ", but got ",
              label,
              ".");
        }
      }
    }
  });
}

bool is_plain_batch(
    const std::string& op,
    const mx::array& log_probs,
    const mx::array& targets,
    const mx::array& input_lengths,
    const mx::array& target_lengths,
    int64_t blank) {
  if (log_probs.ndim() != 3 || targets.ndim() != 2 || targets.size() == 0 ||
      !mx::issubdtype(log_probs.dtype(), mx::floating) ||
      targets.dtype() != mx::int32 || targets.shape(0) != log_probs.shape(1) ||
      is_outside(blank, log_probs.shape(2))) {
    return false;
  }
  for (const auto* lengths : {&input_lengths, &target_lengths}) {
    if (lengths->dtype() != mx::int32 ||
        lengths->shape() != mx::Shape{targets.shape(0)}) {
      return false;
    }
  }
  if (is_known(input_lengths)) {
    check_lengths(op, "input_lengths", input_lengths, log_probs.shape(0));
  }
  if (is_known(target_lengths)) {
    check_lengths(op, "target_lengths", target_lengths, targets.shape(1));
    if (is_known(targets)) {
      check_labels(op, targets, target_lengths, log_probs.shape(2), -1);
    }
  }
  return true;
}

void check_fit(
    const std::string& op,
    const mx::array& targets,
    bool targets_are_known,
    const mx::array& input_lengths,
    const mx::array& target_lengths) {
  auto frames = values_of(input_lengths);
  auto needed = values_of(target_lengths);
  if (targets_are_known) {
    auto more = repeats(targets, needed);
    for (size_t n = 0; n < needed.size(); ++n) {
      needed[n] += more[n];
    }
  }
  for (size_t n = 0; n < needed.size(); ++n) {
    if (frames[n] < needed[n]) {
      fail(
          op,
          "Expected input_lengths[",
          n,
          "] of ",
          needed[n],
          " or more for its target but got ",
          frames[n],
          ".");
    }
  }
}

mx::array pad_targets(
    const std::string& op,
    const mx::array& targets,
    bool targets_are_known,
    const mx::array& lengths,
    mx::StreamOrDevice s) {
  auto counts = values_of(lengths);
  int64_t size = targets.size();
  int64_t total = 0;
  int64_t S = 0;
  for (int64_t count : counts) {
    total += count;
    S = std::max(S, count);
  }
  if (total != size) {
    fail(
        op,
        "Expected 1-D targets of sum(target_lengths) = ",
        total,
        " labels but got ",
        size,
        ".");
  }
  // Where each label of the rows is in `targets`.
  std::vector<int32_t> index(counts.size() * S);
  int64_t begin = 0;
  for (size_t n = 0; n < counts.size(); ++n) {
    for (int64_t i = 0; i < S; ++i) {
      index[n * S + i] = std::min(begin + i, std::max<int64_t>(size - 1, 0));
    }
    begin += counts[n];
  }
  mx::Shape shape = {static_cast<int>(counts.size()), static_cast<int>(S)};
  if (!targets_are_known) {
    return size == 0 ? mx::zeros(shape, targets.dtype(), s)
                     : mx::take(targets, mx::array(index.begin(), shape), s);
  }
  return with_values(targets, [&](auto* values) {
    std::vector<int64_t> rows(index.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      rows[i] = number(values[index[i] * targets.strides(0)]);
    }
    return mx::array(rows.begin(), shape, mx::int64);
  });
}

mx::array mask_lengths(
    const std::string& op,
    const std::string& name,
    const mx::array& mask) {
  auto is_one = [&](int64_t n, int64_t i, int64_t value) {
    if (is_outside(value, 2)) {
      auto where = position_text(name, n, i);
      fail(op, "Expected ", where, " of a mask, 0 or 1, but got ", value, ".");
    }
    return value == 1;
  };
  auto refuse = [&](int64_t n, int64_t i, int64_t end, int64_t value) {
    fail(
        op,
        "Expected ",
        position_text(name, n, i),
        " to be 0, as ",
        position_text(name, n, end),
        " of this mask is, but got ",
        value,
        ".");
  };
  return prefix_lengths(mask, is_one, refuse);
}

mx::array
label_lengths(const std::string& op, const mx::array& targets, int64_t blank) {
  auto is_label = [=](int64_t, int64_t, int64_t value) {
    return value >= 0 && value != blank;
  };
  auto refuse = [&](int64_t n, int64_t i, int64_t end, int64_t value) {
    fail(
        op,
        "Expected ",
        position_text("targets", n, i),
        " to be padding, as ",
        position_text("targets", n, end),
        " is (negative or the blank), but got ",
        value,
        ".");
  };
  return prefix_lengths(targets, is_label, refuse);
}

mx::array to_int32(const mx::array& a) {
  if (a.dtype() == mx::int32) {
    return a;
  }
  constexpr int64_t least = std::numeric_limits<int32_t>::min();
  constexpr int64_t greatest = std::numeric_limits<int32_t>::max();
  return with_values(a, [&](auto* values) {
    std::vector<int32_t> result;
    result.reserve(a.size());
    int64_t rows = a.ndim() > 1 ? a.shape(0) : 1;
    int64_t row_stride = a.ndim() > 1 ? a.strides(0) : 0;
    for (int64_t n = 0; n < rows; ++n) {
      for (int64_t s = 0; s < a.shape(-1); ++s) {
        auto value = values[n * row_stride + s * a.strides(-1)];
        result.push_back(std::clamp(number(value), least, greatest));
      }
    }
    return mx::array(result.begin(), a.shape());
  });
}

} // namespace mlx_ctc
