// The launch of metal/gradient.metal: the gradient. A threadgroup takes a
// segment, or for long targets a part of its frames.
#include "gpu/kernels.h"
#include "kernel_text.h"

namespace mlx_ctc::gpu {

namespace {

// A simdgroup for each window, up to four; with more windows than simdgroups,
// the greatest number of simdgroups that adds no idle ones in the last round.
int simdgroups_for(int windows) {
  int simdgroups = std::min(windows, 2);
  for (int more : {3, max_segment_simdgroups}) {
    if (ceil_div(windows, more) * more <=
        ceil_div(windows, simdgroups) * simdgroups) {
      simdgroups = more;
    }
  }
  return simdgroups;
}

} // namespace

Launch gradient_launch(const Problem& problem) {
  constexpr const char* name = "ctc_gradient";
  auto [T, N, C, S] = std::tuple(problem.T, problem.N, problem.C, problem.S);
  int simdgroups = simdgroups_for(problem.windows());
  // Rounded up, so that only a few variants are compiled.
  int max_simdgroups =
      ceil_power_of_two(problem.windows(), max_segment_simdgroups);
  int threads = simdgroups * simdgroup_width;
  int max_threads = max_simdgroups * simdgroup_width;
  if (C >= 1024) { // more threads write a long row of the gradient
    threads = max_threads = 256;
  }
  // A threadgroup writes all frames of a segment if their gamma, a float for
  // each label and frame, fits in its memory beside the probabilities. Else it
  // writes a half, a quarter or an eighth of them, and the segment's recursion
  // is run by two, four or eight threadgroups.
  int segment = problem.segment_frames();
  int capacity = ceil_power_of_two(std::max(S, simdgroup_width), part_labels);
  int frames = segment;
  int probabilities = segment * max_simdgroups * simdgroup_width;
  while (4 * (frames * capacity + probabilities) > threadgroup_bytes) {
    frames /= 2;
  }
  // Short rows are written side by side, a thread for each class.
  int side_by_side = floor_power_of_two(threads / C, std::min(frames, 4));
  return {
      .name = name,
      .inputs =
          joined({batch_names(), {"cotangent"}, scan_tables(), {options_name}}),
      .outputs = {{"gradient", {T, N, C}, problem.type}},
      .template_args =
          {{"LOGITS", problem.with_logits},
           {"NORMALIZED", problem.normalized},
           {"ELEMENT", problem.type},
           {"SEGMENT", segment},
           {"FRAMES", frames},
           {"SIDE_BY_SIDE", side_by_side},
           {"PART", part_labels},
           {"CAPACITY", capacity},
           {"MAX_SIMDGROUPS", max_simdgroups}},
      .grid = segments_grid(name, threads, ceil_div(T, frames), N),
      .threadgroup = {threads, 1, 1},
      .max_threads = max_threads,
      // 65536 registers / 72 for each thread = 910 resident threads.
      .resident = 896 / max_threads,
      .functions = text::gradient.functions,
      .source = text::gradient.body};
}

} // namespace mlx_ctc::gpu
