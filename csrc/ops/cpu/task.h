// A task on one of MLX's CPU streams, and the memory of its outputs.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "mlx/array.h"
#include "mlx/backend/cpu/encoder.h"
#include "system/parallel.h"

namespace mlx_ctc::cpu {

namespace mx = mlx::core;

// Gives an output its memory, and so many bytes more behind it.
void allocate(mx::array& output, size_t more = 0);

// Gives an output that nothing will read no memory.
void leave_empty(mx::array& output);

// Lets MLX keep so much freed memory that the next step finds an output of so
// many bytes again. Its CPU allocator keeps 32 MiB by default, and a larger
// array is then made of fresh pages in every step, which the system has to
// clear: most of the time of a loss with thousands of classes. A limit that the
// user has set stays. Must not be called within an evaluation: MLX waits for
// its streams.
void keep_freed(size_t bytes);

// Lets all threads fetch a large output's pages from the system, which clears
// them: in a loop over sequences, whose rows lie side by side, several threads
// would clear the same page.
void fetch_pages(mx::array& output);

// Arrays that a task on a stream may use while MLX keeps the originals.
std::vector<mx::array> weak_copies(const std::vector<mx::array>& arrays);

// Fills `count` elements of a floating type with NaN.
void fill_with_nan(mx::Dtype dtype, char* begin, int64_t count);

// The outputs of a task that failed with the current exception: NaN, and 0 in
// integers; but `blank` in the first output, where that has classes. Prints the
// exception to stderr.
void fill_failed(std::vector<mx::array>& outputs, int blank) noexcept;

// Queues task(inputs, outputs) on the stream, for which `threads` will be
// needed. Outputs that have no memory yet are given it.
//
// An exception must not leave the task. MLX would throw it in a later
// evaluation, after it had marked these outputs as evaluated, and would count
// one active task too many from then on: past ten of them it waits for ever.
template <typename Task>
void dispatch(
    mx::Stream stream,
    int threads,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs,
    int blank,
    Task task) {
  expect_parallel_for(threads);
  for (auto& out : outputs) {
    if (!out.data_shared_ptr()) {
      allocate(out);
    }
  }
  mx::cpu::get_command_encoder(stream).dispatch(
      [task = std::move(task),
       blank,
       inputs = weak_copies(inputs),
       outputs = weak_copies(outputs)]() mutable {
        try {
          task(inputs, outputs);
        } catch (...) {
          fill_failed(outputs, blank);
        }
      });
}

} // namespace mlx_ctc::cpu
