#include "ops/cpu/align_cpu.h"

#include <algorithm>
#include <memory>
#include <span>
#include <tuple>

#include "lattice/viterbi.h"
#include "ops/cpu/batch.h"
#include "ops/cpu/task.h"

namespace mlx_ctc::cpu {

void align(
    const AlignOptions& options,
    mx::Stream stream,
    const std::vector<mx::array>& inputs,
    std::vector<mx::array>& outputs) {
  auto& kernels = viterbi(element_of(inputs[0].dtype()));
  auto [T, C, S] =
      std::tuple(inputs[0].shape(0), inputs[0].shape(2), inputs[1].shape(1));
  int segment_frames = options.segment_frames > 0
      ? options.segment_frames
      : viterbi_segment_frames(T, S);
  size_t bytes = kernels.workspace_bytes(T, C, S, segment_frames);
  auto workspaces =
      Workspaces::on(stream, "forced_align", bytes, inputs[0], inputs[1]);
  auto task = [options, segment_frames, &kernels, workspaces](
                  auto& inputs, auto& outputs) {
    Batch batch(inputs, options.blank, options.with_logits, false);
    int32_t* alignments = outputs[0].template data<int32_t>();
    char* scores = outputs[1].template data<char>();
    size_t item = outputs[1].itemsize();
    batch.for_each_sequence(
        *workspaces, [&](int64_t n, std::span<std::byte> workspace) {
          Sequence sequence = batch.sequence(n);
          int32_t* alignment = alignments + n * batch.T;
          char* score = scores + n * batch.T * item;
          if (!batch.is_valid(n)) {
            std::fill_n(alignment, batch.T, options.blank);
            fill_with_nan(outputs[1].dtype(), score, batch.T);
            return;
          }
          kernels.align(sequence, segment_frames, alignment, score, workspace);
          std::fill(
              alignment + sequence.frames, alignment + batch.T, options.blank);
          std::fill(score + sequence.frames * item, score + batch.T * item, 0);
        });
  };
  dispatch(stream, workspaces->size(), inputs, outputs, options.blank, task);
}

} // namespace mlx_ctc::cpu
