// Splits independent work over the CPU's threads.
#pragma once

#include <cstdint>
#include <functional>

namespace mlx_ctc::cpu {

// How many threads parallel_for uses at most: MLX_CTC_NUM_THREADS if it is set,
// else the cores this process may run on. Throws if it is set to anything but a
// number of threads.
int max_threads();

// Wakes the threads because parallel_for will be called soon.
void expect_parallel_for();

// Calls body(i, worker) once for every i in [0, n), in any order. `worker`, in
// [0, max_threads()), is the index of the calling thread. Returns when all
// calls have returned, and throws the first exception that one of them has
// thrown.
void parallel_for(int64_t n, const std::function<void(int64_t, int)>& body);

} // namespace mlx_ctc::cpu
