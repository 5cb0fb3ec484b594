// The CPU form of greedy_decode: threads find the best classes of blocks of
// frames, and one then makes labels of them.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/greedy_decode.h"

namespace mlx_ctc::cpu {

// Scores that one thread takes at a time.
constexpr int64_t greedy_task_bytes = 1 << 18;

void greedy(
    const GreedyOptions& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs);

// The same on the calling thread, of known inputs. The outputs need no
// evaluation.
void greedy_at_once(
    const GreedyOptions& options,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs);

} // namespace mlx_ctc::cpu
