#include "cpu/align_cpu.h"

#include <algorithm>

#include "cpu/batch.h"
#include "cpu/task.h"
#include "cpu/viterbi.h"

namespace mlx_ctc::cpu {

void align(
    const AlignOptions& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  dispatch(stream, inputs, outputs, [options](auto& inputs, auto& outputs) {
    Batch batch("forced_align", inputs, options.blank, options.with_logits);
    const Viterbi& kernels = viterbi(batch.element);
    int32_t* alignments = outputs[0].template data<int32_t>();
    char* scores = outputs[1].template data<char>();
    size_t item = outputs[1].itemsize();
    size_t bytes = kernels.workspace_bytes(batch.T, batch.C, batch.S);
    batch.for_each_sequence(bytes, [&](int64_t n, std::byte* workspace) {
      Sequence sequence = batch.sequence(n);
      int32_t* alignment = alignments + n * batch.T;
      char* score = scores + n * batch.T * item;
      kernels.align(sequence, alignment, score, workspace);
      std::fill(
          alignment + sequence.frames, alignment + batch.T, options.blank);
      std::fill(score + sequence.frames * item, score + batch.T * item, 0);
    });
  });
}

} // namespace mlx_ctc::cpu
