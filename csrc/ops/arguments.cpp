#include "ops/arguments.h"

#include "mlx/ops.h"
#include "system/parallel.h"

namespace mlx_ctc {

mx::Dtype computing_dtype(mx::Dtype dtype) {
  return dtype == mx::float64 ? mx::float64 : mx::float32;
}

std::string text(const mx::Shape& shape) {
  std::string result = "(";
  for (size_t i = 0; i < shape.size(); ++i) {
    result += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  }
  return result + (shape.size() == 1 ? ",)" : ")");
}

void check(
    const std::string& op,
    const std::vector<mx::array>& inputs,
    int blank,
    const mx::Stream& stream) {
  const auto& log_probs = inputs[0];
  const auto& targets = inputs[1];
  if (stream.device == mx::Device::cpu) {
    cpu::max_threads(); // an error in its environment variable is raised here
  }
  if (log_probs.ndim() != 3) {
    fail(
        op,
        "Expected log_probs of shape (T, N, C) but got ",
        log_probs.shape(),
        ".");
  }
  if (!mx::issubdtype(log_probs.dtype(), mx::floating)) {
    fail(op, "Expected log_probs of a floating type but got another.");
  }
  if (log_probs.dtype() == mx::float64 && stream.device == mx::Device::gpu) {
    fail(
        op,
        "Expected float16, bfloat16 or float32 on the GPU but got float64. "
        "Pass stream=mx.cpu to compute in float64.");
  }
  int N = log_probs.shape(1);
  int C = log_probs.shape(2);
  if (targets.ndim() != 2 || targets.shape(0) != N) {
    fail(
        op,
        "Expected targets of shape (",
        N,
        ", S) but got ",
        targets.shape(),
        ".");
  }
  for (int i : {2, 3}) {
    if (inputs[i].shape() != mx::Shape{N}) {
      fail(
          op,
          "Expected lengths of shape (",
          N,
          ") but got ",
          inputs[i].shape(),
          ".");
    }
  }
  for (int i : {1, 2, 3}) {
    if (inputs[i].dtype() != mx::int32) {
      fail(op, "Expected targets and lengths as int32 but got another type.");
    }
  }
  if (blank < 0 || blank >= C) {
    fail(op, "Expected blank in [0, ", C, ") but got ", blank, ".");
  }
}

mx::array fold(
    const mx::array& a,
    int axis,
    int size,
    int into,
    const mx::Stream& stream) {
  auto folded = axis < 0 ? mx::expand_dims(a, into, stream)
                         : mx::moveaxis(a, axis, into, stream);
  auto shape = folded.shape();
  shape[into] = size;
  folded = mx::broadcast_to(folded, shape, stream);
  return mx::flatten(folded, into, into + 1, stream);
}

std::vector<mx::array> fold_inputs(
    const std::vector<mx::array>& inputs,
    const std::vector<int>& axes,
    int size,
    const mx::Stream& stream) {
  std::vector<mx::array> folded;
  folded.reserve(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    folded.push_back(fold(inputs[i], axes[i], size, i == 0 ? 1 : 0, stream));
  }
  return folded;
}

int vmap_size(
    const std::vector<mx::array>& inputs,
    const std::vector<int>& axes) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (axes[i] >= 0) {
      return inputs[i].shape(axes[i]);
    }
  }
  return 1;
}

} // namespace mlx_ctc
