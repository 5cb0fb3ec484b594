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
    ClassTables tables,
    int blank,
    int part, // labels of a part
    Device<float> by_class, // (frames, C)
    Threads self) {
  const float nan = metal::numeric_limits<float>::quiet_NaN();
  const int C = tables.C;
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
      const Ranks ranks = unpack_ranks(tables.classes_of_part(p)[c]);
      for (int rank = ranks.begin; rank < ranks.end; ++rank) {
        const int i = p * part + int(tables.label_of_rank[p * part + rank]);
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
