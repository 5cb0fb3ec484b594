// The launch of metal/refine.metal: the loss, of confident sequences with more
// digits than the scan's.
#include "gpu/kernels.h"
#include "kernel_text.h"

namespace mlx_ctc::gpu {

Launch refine_launch(const Problem& problem) {
  int simdgroups = problem.has_factors() ? 4 : problem.max_scan_windows();
  int threads = simdgroups * simdgroup_width;
  return {
      .name = "ctc_refine",
      .inputs = joined(
          {batch_names(),
           {"normalisers",
            "scan_loss",
            "z",
            "checkpoints",
            "factors",
            options_name}}),
      .outputs = {{"loss", {problem.N}, Type::float32}},
      .template_args =
          {{"LOGITS", problem.with_logits},
           {"FACTORS", problem.has_factors()},
           {"MANY_CLASSES", problem.has_many_classes()},
           {"SEGMENT", problem.segment_frames()},
           {"SIMDGROUPS", simdgroups}},
      .grid = {threads * problem.N, 1, 1},
      .threadgroup = {threads, 1, 1},
      .max_threads = threads,
      .resident = 2,
      .functions = text::refine.functions,
      .source = text::refine.body};
}

} // namespace mlx_ctc::gpu
