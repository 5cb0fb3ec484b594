// Splits independent work over the CPU's threads.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace mlx_ctc::cpu {

// How many threads parallel_for uses at most: MLX_CTC_NUM_THREADS if it is set,
// else the cores this process may run on. Throws if it is set to anything but a
// number of threads.
int max_threads();

// How many threads are worth waking for about so many nanoseconds of work.
int threads_for(int64_t nanoseconds);

// Wakes threads because parallel_for will soon be called for so many.
void expect_parallel_for(int threads);

// Calls body(i, worker) once for every i in [0, n), in any order, on at most
// `threads` threads, each of which takes the next i when it is free. `worker`,
// in [0, threads), is the index of the thread that runs this body(i, worker).
// Returns when all of them have returned, and throws the first exception that
// one of them has thrown.
void parallel_for(
    int64_t n,
    int threads,
    const std::function<void(int64_t, int)>& body);

// Where each share of work begins, and the end, for items of these costs that
// are taken in order. Shares become smaller (guided self-scheduling), so that
// threads end together, also where some are slower than others.
std::vector<int64_t> shares(std::span<const int64_t> costs, int threads);

} // namespace mlx_ctc::cpu
