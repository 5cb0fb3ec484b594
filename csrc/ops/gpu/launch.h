// What the GPU form launches, as plain data: names, shapes and sizes, made from
// the inputs' shapes alone. ctc_gpu.cpp runs it; the tests of the Metal text
// hand it to an emulator.
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "mlx/fast.h"
#include "ops/ctc_loss.h"
#include "ops/ctc_posteriors.h"
#include "ops/forced_align.h"
#include "ops/op.h"

namespace mlx_ctc::gpu {

enum class Backend { metal, cuda };

using Names = std::vector<std::string>;

struct NamedOutput {
  std::string name;
  mx::Shape shape;
  mx::Dtype dtype;
};

// The shapes and dtypes.
Outputs without_names(const std::vector<NamedOutput>& named);

struct Launch {
  std::string name;
  // The kernel's parameters, and for each input the name of the array that is
  // passed: one of the op's inputs or an output of an earlier launch.
  Names inputs;
  Names arrays;
  std::vector<NamedOutput> outputs;
  std::vector<std::pair<std::string, mx::fast::TemplateArg>> template_args;
  std::tuple<int, int, int> grid; // in threads, as MLX counts
  std::tuple<int, int, int> threadgroup;
  // The threads that a threadgroup may have in another launch of the same text,
  // and how many such threadgroups should fit a multiprocessor: CUDA's compiler
  // divides the registers by them.
  int max_threads;
  int resident;
  // The kernel's text: the functions it calls, and its body. MLX writes the
  // signature between them.
  const char* functions;
  const char* source;
};

// The text before the kernel's source.
std::string header(const Launch& launch, Backend backend);

// In the order of their dispatch. `inputs` are the op's: log_probs, targets,
// input_lengths, target_lengths.
std::vector<Launch> loss_launches(
    const std::vector<mx::array>& inputs,
    const Options& options,
    Backend backend);
std::vector<Launch> gradient_launches(
    const std::vector<mx::array>& inputs,
    const Options& options,
    Backend backend);

std::vector<Launch> align_launches(
    const std::vector<mx::array>& inputs,
    const AlignOptions& options,
    Backend backend);

std::vector<Launch> posterior_launches(
    const std::vector<mx::array>& inputs,
    const PosteriorOptions& options,
    Backend backend);

} // namespace mlx_ctc::gpu
