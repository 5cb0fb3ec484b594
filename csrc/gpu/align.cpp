// The launch of metal/align.metal: the Viterbi recursion and its way back.
#include "gpu/kernels.h"
#include "kernel_text.h"

namespace mlx_ctc::gpu {

Launch align_launch(const Problem& problem) {
  constexpr int block = 8; // frames whose moves fill 32 bits
  auto [T, N, S] = std::tuple(problem.T, problem.N, problem.S);
  // Here a target of S labels has S + 1 pairs: the blank before each label, and
  // the last blank.
  int windows = S / simdgroup_width + 1;
  int max_simdgroups = problem.backend == Backend::cuda ? 16 : 8;
  int simdgroups = ceil_power_of_two(windows, max_simdgroups);
  int threads = simdgroups * simdgroup_width;
  bool rounds = windows > max_simdgroups;
  int blocks = ceil_div(T, block);
  return {
      .name = "ctc_align",
      .inputs = joined({batch_names(), {"normalisers", options_name}}),
      .outputs =
          {{"alignments", {N, T}, Type::int32},
           {"scores", {N, T}, Type::float32},
           {"moves", {N, blocks, S + 1}, Type::uint32},
           {"edges", {N, 2, rounds ? T : 1}, Type::int64}},
      .template_args =
          {{"LOGITS", problem.with_logits},
           {"ROUNDS", rounds},
           {"MAX_SIMDGROUPS", max_simdgroups}},
      .grid = {threads * N, 1, 1},
      .threadgroup = {threads, 1, 1},
      .max_threads = max_simdgroups * simdgroup_width,
      .resident = 1,
      .functions = text::align.functions,
      .source = text::align.body};
}

} // namespace mlx_ctc::gpu
