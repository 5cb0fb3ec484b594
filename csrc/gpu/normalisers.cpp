// The launch of metal/normalisers.metal: the softmax normaliser of each frame.
#include "gpu/kernels.h"
#include "kernel_text.h"

namespace mlx_ctc::gpu {

Launch normalisers_launch(const Problem& problem) {
  constexpr int threads = 256;
  constexpr int64_t max_threadgroups = 1 << 20;
  // Threads that share a frame: each takes 8 classes or more, so that the
  // reduction over the threads is little beside the reading.
  int frame_threads = problem.C > 16384
      ? threads
      : floor_power_of_two(problem.C / 8, simdgroup_width);
  int64_t frames = int64_t(problem.T) * problem.N;
  int64_t threadgroups =
      std::min(ceil_div(frames * frame_threads, threads), max_threadgroups);
  return {
      .name = "ctc_normalisers",
      .inputs = {"log_probs", "input_lengths"},
      .outputs = {{"normalisers", {problem.N, problem.T, 2}, Type::float32}},
      .template_args = {{"THREADS", threads}, {"FRAME_THREADS", frame_threads}},
      .grid = {static_cast<int>(threadgroups) * threads, 1, 1},
      .threadgroup = {threads, 1, 1},
      .max_threads = threads,
      .resident = 8,
      .functions = text::normalisers.functions,
      .source = text::normalisers.body};
}

} // namespace mlx_ctc::gpu
