// Posteriors summed by class, from those by label.

#include "classes.h"
#include "pointers.h"
#include "segment.h"
#include "threads.h"

// Writes the rows of a threadgroup's frames. Each thread sums the labels of a
// class in the order of the target, part by part.
template <int SEGMENT>
METAL_FUNC void write_by_class(
    WrittenFrames frames,
    int S_n,
    Shared<float> blank_gammas, // (SEGMENT)
    Device<const float> by_label, // (frames, S + 1), the blank first
    int S,
    Device<const uint> classes, // (parts, max(C, 8)) of the sequence
    Device<const uint16_t> label_of_rank, // (S) of the sequence
    int C,
    int blank,
    int part, // labels of a part
    Device<float> by_class, // (frames, C)
    Threads self) {
  const float nan = metal::numeric_limits<float>::quiet_NaN();
  const int parts = frames.with_paths > 0 ? parts_of(S_n, part) : 0;
  for (int c = self.index; c < C; c += self.count) {
    float sums[SEGMENT];
    for (int f = 0; f < SEGMENT; ++f) {
      sums[f] = f < frames.invalid ? nan : 0.0f;
      if (c == blank && f < frames.with_paths) {
        sums[f] = blank_gammas[f];
      }
    }
    for (int p = 0; p < parts; ++p) {
      const int64_t part_of_classes = int64_t(p) * size_of_classes(C);
      const Ranks ranks = unpack_ranks(classes[part_of_classes + c]);
      for (int rank = ranks.begin; rank < ranks.end; ++rank) {
        const int i = p * part + int(label_of_rank[p * part + rank]);
        for (int f = 0; f < frames.with_paths; ++f) {
          sums[f] += by_label[int64_t(f) * (S + 1) + i + 1];
        }
      }
    }
    for (int f = 0; f < frames.count; ++f) {
      by_class[int64_t(f) * C + c] = sums[f];
    }
  }
}
