// The launch of metal/scan.metal: the loss, and what the gradient reads.
#include "gpu/kernels.h"
#include "kernel_text.h"

namespace mlx_ctc::gpu {

namespace {

// The threads that should be resident on a multiprocessor, whose 65536
// registers they share: 64 for each of 1024 threads, 80 for 768, 128 for 512.
// With 64, NVIDIA's compiler moves scores that are loaded ahead to memory, and
// so waits for them. That costs most where rows are far apart, as with many
// classes. With more than two windows it costs less than if fewer threadgroups
// were resident.
int resident_threads(int C, int max_windows) {
  return C >= 1024 ? 512 : max_windows <= 2 ? 768 : 1024;
}

} // namespace

Launch scan_launch(const Problem& problem) {
  auto [T, N, C, S] = std::tuple(problem.T, problem.N, problem.C, problem.S);
  // Two simdgroups for each window: one computes the probabilities of a segment
  // while the other runs the recursion over the segment before.
  int most = problem.max_scan_windows();
  int windows = std::min(problem.windows(), most);
  int threads = 2 * windows * simdgroup_width;
  // Rounded up, so that only a few variants are compiled. Above 8 the number of
  // threads limits the registers of each: for 9 and 10 windows equally, for 11
  // and 12, and so on.
  int max_windows = windows > 8 ? 2 * static_cast<int>(ceil_div(windows, 2))
                                : ceil_power_of_two(windows, most);
  int max_threads = 2 * max_windows * simdgroup_width;
  int segment = problem.segment_frames();
  int segments = problem.segments();
  int parts = std::max<int>(ceil_div(S, part_labels), 1);
  return {
      .name = "ctc_scan",
      .inputs = joined({batch_names(), {"normalisers", options_name}}),
      // metal/tables.h has the layout, and why the last dimensions have minima.
      .outputs =
          {{"scan_loss", {N}, Type::float32},
           {"z", {N}, Type::uint64},
           {"checkpoints",
            {N, segments, 2, std::max(S, 1) + 1, 2},
            Type::uint64},
           {"edges",
            {N, segments, problem.windows() + 1, 3, 2, segment},
            Type::uint32},
           {"classes", {N, parts, std::max(C, 8)}, Type::uint32},
           {"labels", {N, std::max(S, 8)}, Type::uint64},
           {"label_of_rank", {N, std::max(S, 8)}, Type::uint16}},
      .template_args =
          {{"LOGITS", problem.with_logits},
           {"ROUNDS", problem.windows() > windows},
           {"SEGMENT", segment},
           {"PART", part_labels},
           {"MAX_WINDOWS", max_windows}},
      // Three threadgroups for each sequence: alpha, beta_p, and the sort of
      // the labels by class.
      .grid = {threads * N, 3, 1},
      .threadgroup = {threads, 1, 1},
      .max_threads = max_threads,
      .resident = std::max(resident_threads(C, max_windows) / max_threads, 1),
      .functions = text::scan.functions,
      .source = text::scan.body};
}

} // namespace mlx_ctc::gpu
