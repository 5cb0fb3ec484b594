// A kernel's launch as plain data: names, shapes and sizes, without MLX's
// types. csrc/ops/gpu runs it; the tests of the kernels give it to an emulator.
#pragma once

#include <array>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

namespace mlx_ctc::gpu {

enum class Backend { metal, cuda };

enum class Type {
  float16,
  bfloat16,
  float32,
  float64,
  int32,
  int64,
  uint16,
  uint32,
  uint64
};

using Names = std::vector<std::string>;

struct Table {
  std::string name;
  std::vector<int> shape;
  Type type;
};

// What the kernel's signature depends on.
struct Parameter {
  Type type;
  int ndim;

  bool operator==(const Parameter&) const = default;
};

// A last parameter of this name is not an array of the step: it has the
// launch's options. On CUDA our own text has them as parameters by value, and
// the text that MLX compiles as constants.
constexpr const char* options_name = "options";

// In the order in which kernels read them; values_of in plan.cpp sets them.
using OptionValues = std::array<int, 2>;

using TemplateValue = std::variant<int, bool, Type>;

struct Launch {
  std::string name;
  Names inputs; // the names of the kernel's parameters
  std::vector<Parameter> parameters = {}; // of the inputs; set by the plan
  // The arrays that are passed for the inputs, without the options, and those
  // that are written, as indices of the plan's arrays. The plan sets both.
  std::vector<int> read = {};
  std::vector<int> written = {};
  std::vector<Table> outputs;
  std::vector<std::pair<std::string, TemplateValue>> template_args;
  OptionValues options = {}; // set by the plan
  std::tuple<int, int, int> grid; // in threads, as MLX counts
  std::tuple<int, int, int> threadgroup; // in threads
  // The most threads that a threadgroup has in any launch of the same text, and
  // how many such threadgroups should be resident on a multiprocessor: CUDA's
  // __launch_bounds__, from which its compiler derives the registers of a
  // thread.
  int max_threads;
  int resident;
  // The kernel's text: the functions that it calls, and its body. MLX or
  // cuda_text.cpp writes the signature between them.
  const char* functions;
  const char* source;
};

inline bool has_options(const Launch& launch) {
  return launch.inputs.back() == options_name;
}

// The kernel's name, with what its text depends on besides the template
// arguments and the inputs. On Metal there is nothing: equal texts, which take
// MLX 0.5 to 3 s to compile, have equal names.
std::string text_name(const Launch& launch, Backend backend);

// The text before the kernel's body.
std::string header(const Launch& launch, Backend backend);

} // namespace mlx_ctc::gpu
