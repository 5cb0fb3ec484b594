// The launch of each kernel in metal/, for a problem that is not empty.
#pragma once

#include <initializer_list>

#include "gpu/launch.h"
#include "gpu/problem.h"

namespace mlx_ctc::gpu {

Names joined(std::initializer_list<Names> parts);

// The arrays that every kernel reads.
Names batch_names();

// The tables of the scan, and of the normalisers before it, that the gradient
// and the posteriors read.
Names scan_tables();

Launch normalisers_launch(const Problem& problem);
Launch scan_launch(const Problem& problem);
Launch factors_launch(const Problem& problem);
Launch refine_launch(const Problem& problem);
Launch gradient_launch(const Problem& problem);
Launch align_launch(const Problem& problem);
Launch posteriors_launch(const Problem& problem);

// A grid with a threadgroup for each segment of each sequence. x: segments;
// y and z: the sequences, n = y + z * size of y. CUDA limits y and z to 65535
// threadgroups each. Refuses more threads along x than MLX can count.
std::tuple<int, int, int>
segments_grid(const char* kernel, int threads, int64_t segments, int N);

} // namespace mlx_ctc::gpu
