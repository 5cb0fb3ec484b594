// The CPU form of forced_align: a batch of sequences over threads.
#pragma once

#include <vector>

#include "ops/forced_align.h"

namespace mlx_ctc::cpu {

void align(
    const AlignOptions& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs);

} // namespace mlx_ctc::cpu
