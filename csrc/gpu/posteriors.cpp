// The launch of metal/posteriors.metal: gamma, a segment for each threadgroup.
#include "gpu/kernels.h"
#include "kernel_text.h"

namespace mlx_ctc::gpu {

Launch posteriors_launch(const Problem& problem) {
  constexpr const char* name = "ctc_posteriors";
  auto [T, N, C, S] = std::tuple(problem.T, problem.N, problem.C, problem.S);
  int simdgroups = std::min(problem.windows(), max_segment_simdgroups);
  int threads = simdgroups * simdgroup_width;
  auto by_class =
      problem.by_class ? std::vector{N, T, C} : std::vector{1, 1, 1};
  return {
      .name = name,
      .inputs = joined({batch_names(), scan_tables(), {options_name}}),
      .outputs =
          {{"by_label", {N, T, S + 1}, Type::float32},
           {"by_class", by_class, Type::float32}},
      .template_args =
          {{"LOGITS", problem.with_logits},
           {"BY_CLASS", problem.by_class},
           {"SEGMENT", problem.segment_frames()},
           {"PART", part_labels},
           {"MAX_SIMDGROUPS", max_segment_simdgroups}},
      .grid = segments_grid(name, threads, problem.segments(), N),
      .threadgroup = {threads, 1, 1},
      .max_threads = max_segment_simdgroups * simdgroup_width,
      .resident = 1,
      .functions = text::posteriors.functions,
      .source = text::posteriors.body};
}

} // namespace mlx_ctc::gpu
