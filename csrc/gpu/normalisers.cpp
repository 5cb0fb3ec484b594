// The launch of metal/normalisers.metal: the softmax normaliser of each frame.
#include <stdexcept>

#include "gpu/kernels.h"
#include "kernel_text.h"

namespace mlx_ctc::gpu {

namespace {

constexpr int threads = 256;
constexpr int64_t max_threadgroups = 1 << 20;

// The index of a thread's frame, a uint, grows by up to max_threadgroups *
// threads in each step of the kernel's loop, and must not overflow.
constexpr int64_t max_frames = (int64_t(1) << 32) - max_threadgroups * threads;

void check_frames(const Problem& problem) {
  if (int64_t(problem.T) * problem.N > max_frames) {
    throw std::invalid_argument(
        "[mlx_ctc] Expected logits of at most " + std::to_string(max_frames) +
        " frames on a GPU but got T = " + std::to_string(problem.T) +
        " frames of N = " + std::to_string(problem.N) +
        " sequences. Pass fewer sequences at once.");
  }
}

} // namespace

Launch normalisers_launch(const Problem& problem) {
  check_frames(problem);
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
