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

// Calls body(i, worker) once for every i in [0, n), in any order, with worker
// in [0, max_threads()) naming the thread. Returns when all calls have; the
// first exception is thrown again here.
void parallel_for(int64_t n, const std::function<void(int64_t, int)>& body);

} // namespace mlx_ctc::cpu
