// The launch of metal/factors.metal: the factors of a confident sequence's z.
#include "gpu/kernels.h"
#include "kernel_text.h"

namespace mlx_ctc::gpu {

Launch factors_launch(const Problem& problem) {
  constexpr const char* name = "ctc_factors";
  constexpr int simdgroups = 4;
  constexpr int threads = simdgroups * simdgroup_width;
  // A simdgroup for each task (factor_of_simdgroup), or fewer if they fill the
  // GPU: for sequences that are not confident they are launched in vain.
  int64_t tasks = problem.segments();
  if (problem.with_logits) {
    tasks += problem.has_many_classes() ? ceil_div(problem.T, 4) : tasks;
  }
  int64_t most = std::max(8192 / problem.N, 1);
  int64_t threadgroups = ceil_div(std::min(tasks, most), simdgroups);
  int factors = static_cast<int>(threadgroups) * simdgroups;
  return {
      .name = name,
      .inputs = joined(
          {batch_names(),
           {"normalisers", "scan_loss", "z", "checkpoints", options_name}}),
      .outputs = {{"factors", {problem.N, factors, 2}, Type::uint64}},
      .template_args =
          {{"LOGITS", problem.with_logits},
           {"MANY_CLASSES", problem.has_many_classes()},
           {"SEGMENT", problem.segment_frames()}},
      .grid = segments_grid(name, threads, threadgroups, problem.N),
      .threadgroup = {threads, 1, 1},
      .max_threads = threads,
      .resident = 8,
      .functions = text::factors.functions,
      .source = text::factors.body};
}

} // namespace mlx_ctc::gpu
