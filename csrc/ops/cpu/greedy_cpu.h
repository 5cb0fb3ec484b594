// The CPU form of greedy_decode: a batch of sequences over threads.
#pragma once

#include <vector>

#include "ops/greedy_decode.h"

namespace mlx_ctc::cpu {

void greedy(
    const GreedyOptions& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs);

} // namespace mlx_ctc::cpu
