// What the ops share: the checks of their four inputs, log_probs, targets,
// input_lengths and target_lengths, and how vmap folds an axis into them.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "mlx/array.h"
#include "mlx/utils.h"

namespace mlx_ctc {

namespace mx = mlx::core;

// float64 computes in float64, every other type in float32.
mx::Dtype computing_dtype(mx::Dtype dtype);

// The parts of a message. Not by std::ostream, whose state is shared with the
// process's libstdc++, which may be another version than the extension's.
inline std::string text(const std::string& part) {
  return part;
}

inline std::string text(int64_t part) {
  return std::to_string(part);
}

std::string text(const mx::Shape& shape);

template <typename... Parts>
[[noreturn]] void fail(const std::string& op, const Parts&... parts) {
  throw std::invalid_argument("[" + op + "] " + (text(parts) + ...));
}

// log_probs, targets, input_lengths and target_lengths: the first inputs of
// each op. What a loss has saved follows them.
constexpr int batch_inputs = 4;

// Checks the shapes and dtypes of the four inputs and the blank, on which
// memory safety depends. Python has checked the rest.
void check(
    const std::string& op,
    const std::vector<mx::array>& inputs,
    int blank,
    const mx::Stream& stream);

// The array with its vmapped axis, of `size`, merged into axis `into`, or
// repeated there if it has none.
mx::array fold(
    const mx::array& a,
    int axis,
    int size,
    int into,
    const mx::Stream& stream);

// The inputs of a vmapped op as those of one larger batch: log_probs with N as
// its second axis, and any others with N as their first.
std::vector<mx::array> fold_inputs(
    const std::vector<mx::array>& inputs,
    const std::vector<int>& axes,
    int size,
    const mx::Stream& stream);

// How long the vmapped axis is.
int vmap_size(
    const std::vector<mx::array>& inputs,
    const std::vector<int>& axes);

} // namespace mlx_ctc
