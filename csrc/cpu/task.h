// A task on one of MLX's CPU streams, and the memory of its outputs.
#pragma once

#include <vector>

#include "cpu/parallel.h"
#include "mlx/array.h"
#include "mlx/backend/cpu/encoder.h"

namespace mlx_ctc::cpu {

namespace mx = mlx::core;

// Gives an output its memory.
void allocate(mx::array& output);

// Lets all threads fetch a large output's pages from the system, which clears
// them: in a loop over sequences, whose rows lie side by side, several threads
// would clear the same page.
void fetch_pages(mx::array& output);

// Arrays that a task on a stream may use while MLX keeps the originals.
std::vector<mx::array> weak_copies(const std::vector<mx::array>& arrays);

// Queues task(inputs, outputs) on the stream.
template <typename Task>
void dispatch(
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs,
    Task task) {
  expect_parallel_for();
  for (auto& out : outputs) {
    allocate(out);
  }
  mx::cpu::get_command_encoder(stream).dispatch(
      [task,
       inputs = weak_copies(inputs),
       outputs = weak_copies(outputs)]() mutable { task(inputs, outputs); });
}

} // namespace mlx_ctc::cpu
