// The gradient's rows: for each of a few frames, a multiple of the softmax
// minus a multiple of gamma, summed by class.

#include "classes.h"
#include "exp.h"
#include "pointers.h"
#include "segment.h"
#include "threads.h"

// Threadgroup memory that the rows are made from. FRAMES is their number.
struct RowMemory {
  Shared<float2> softmax; // (FRAMES) greatest score, cotangent / sum
  Shared<float> gammas; // (FRAMES, capacity) of labels, in order of ranks
  int capacity;
  Shared<float> blank_gammas; // (FRAMES)
  Shared<float> gamma_scale; // (FRAMES) -cotangent / sum of gamma
  Shared<bool> certain_frames; // (FRAMES) nearly certain (likely_row.h)

  METAL_FUNC Shared<float> gammas_of(int row) const {
    return gammas + row * capacity;
  }
};

// The rows of one sequence that a threadgroup writes.
template <typename Element, typename Scores>
struct Rows {
  int C;
  int blank;
  int count; // frames to write
  int count_with_paths; // the first ones; the others get softmax of 0
  bool has_softmax; // else it is 0 in all, and the scores are not read
  Scores scores; // (count, C)
  int64_t frame_stride;
  int64_t class_stride;
  Device<Element> gradient; // (count, C)
  int64_t row_stride;
  int offset; // of the first row from a multiple of 32 elements
  Device<const uint> classes; // (C) ranks of each class's labels
  RowMemory memory;

  // The ranks of a class's labels; none if no frame has a path.
  METAL_FUNC Ranks ranks_of(int c) const {
    return unpack_ranks(count_with_paths > 0 ? classes[c] : 0u);
  }
  METAL_FUNC Scores score(int row, int c) const {
    return scores + row * frame_stride + c * class_stride;
  }
  METAL_FUNC Device<Element> element(int row, int c) const {
    return gradient + row * row_stride + c;
  }
};

// The n-th sequence's rows in a gradient of N, from frame t0 on.
template <typename Element, typename Sequence>
METAL_FUNC Rows<Element, typename Sequence::ScoresPointer> rows_of(
    thread const Sequence& sequence,
    WrittenFrames frames,
    bool has_softmax,
    int n,
    int N,
    int C,
    int t0,
    Device<Element> gradient, // (T, N, C)
    Device<const uint> classes, // (C)
    RowMemory memory) {
  const int64_t first_element = (int64_t(t0) * N + n) * C;
  return Rows<Element, typename Sequence::ScoresPointer>{
      C,
      sequence.blank,
      frames.count,
      frames.with_paths,
      has_softmax,
      sequence.scores + t0 * sequence.frame_stride,
      sequence.frame_stride,
      sequence.class_stride,
      gradient + first_element,
      int64_t(N) * C,
      int(first_element % 32),
      classes,
      memory};
}

// The functions below process COUNT rows, every STEP-th from `first` on.
//
// WHOLE: whether all of a threadgroup's frames have paths, which is so for
// nearly all of them. Only if not, each row is checked.

// Loads the scores of class c; 0 where there is no path or no softmax.
template <int COUNT, int STEP, bool WHOLE, typename Element, typename Scores>
METAL_FUNC void load_class(
    thread float (&loaded)[COUNT],
    Rows<Element, Scores> rows,
    int first,
    int c) {
  Scores from = rows.score(first, c);
#pragma unroll
  for (int k = 0; k < COUNT; ++k) {
    loaded[k] = 0.0f;
    const bool has_path = WHOLE || first + k * STEP < rows.count_with_paths;
    if (rows.has_softmax && has_path) {
      loaded[k] = float(*from);
    }
    from += STEP * rows.frame_stride;
  }
}

// Subtracts cotangent * gamma of the class from `values` (gamma_scale is
// negative): its labels in the order of the target, then the blanks.
template <int COUNT, int STEP, bool WHOLE, typename Element, typename Scores>
METAL_FUNC void subtract_gammas(
    thread float (&values)[COUNT],
    Rows<Element, Scores> rows,
    int first,
    int c,
    Ranks labels) {
  float sums[COUNT];
#pragma unroll
  for (int k = 0; k < COUNT; ++k) {
    sums[k] = 0.0f;
  }
  Shared<float> gammas = rows.memory.gammas_of(first) + labels.begin;
#pragma unroll 1
  for (int rank = labels.begin; rank < labels.end; ++rank) {
#pragma unroll
    for (int k = 0; k < COUNT; ++k) {
      sums[k] += gammas[k * STEP * rows.memory.capacity];
    }
    ++gammas;
  }
  const Shared<float> blanks = rows.memory.blank_gammas + first;
  const Shared<float> scale = rows.memory.gamma_scale + first;
#pragma unroll
  for (int k = 0; k < COUNT; ++k) {
    sums[k] += c == rows.blank ? blanks[k * STEP] : 0.0f;
    if (WHOLE || first + k * STEP < rows.count_with_paths) {
      values[k] = metal::fma(sums[k], scale[k * STEP], values[k]);
    }
  }
}

// Writes the gradient of class c from its scores.
template <
    int COUNT,
    int STEP,
    bool WHOLE,
    bool LOGITS,
    typename Element,
    typename Scores>
METAL_FUNC void write_class(
    Rows<Element, Scores> rows,
    int first,
    int c,
    thread const float (&scores)[COUNT],
    Ranks labels) {
  const Shared<float2> softmax = rows.memory.softmax + first;
  float values[COUNT];
#pragma unroll
  for (int k = 0; k < COUNT; ++k) {
    const float2 frame = softmax[k * STEP];
    const float e =
        LOGITS ? softmax_exp(scores[k] - frame.x) : float_exp(scores[k]);
    values[k] = e * frame.y;
  }
  if (labels.begin < labels.end || c == rows.blank) {
    subtract_gammas<COUNT, STEP, WHOLE>(values, rows, first, c, labels);
  }
  Device<Element> to = rows.element(first, c);
#pragma unroll
  for (int k = 0; k < COUNT; ++k) {
    if (WHOLE || first + k * STEP < rows.count) {
      *to = Element(values[k]);
    }
    to += STEP * rows.row_stride;
  }
}

// STEP rows of few classes side by side: each has a thread for every class.
template <
    int COUNT,
    int STEP,
    bool WHOLE,
    bool LOGITS,
    typename Element,
    typename Scores>
METAL_FUNC void
write_side_by_side(Rows<Element, Scores> rows, int begin, Threads self) {
  const int width = self.count / STEP;
  int row = 0; // self.index / width
#pragma unroll
  for (int k = 1; k < STEP; ++k) {
    row += self.index >= k * width ? 1 : 0;
  }
  const int first = begin + row;
  const int c = self.index - row * width;
  if (c < rows.C) {
    float loaded[COUNT];
    load_class<COUNT, STEP, WHOLE>(loaded, rows, first, c);
    write_class<COUNT, STEP, WHOLE, LOGITS>(
        rows, first, c, loaded, rows.ranks_of(c));
  }
}

// Rows of many classes: each thread loads its next class's scores before it
// uses those of this one. The loop begins before the row, where a simdgroup's
// classes begin at a cache line.
template <int COUNT, bool WHOLE, bool LOGITS, typename Element, typename Scores>
METAL_FUNC void
write_long(Rows<Element, Scores> rows, int first, Threads self) {
  float next[COUNT];
  Ranks next_labels = {0, 0};
  const int begin = self.index - rows.offset;
  if (begin < rows.C) {
    const int c = metal::max(begin, 0);
    load_class<COUNT, 1, WHOLE>(next, rows, first, c);
    next_labels = rows.ranks_of(c);
  }
#pragma unroll 1
  for (int c = begin; c < rows.C; c += self.count) {
    float loaded[COUNT];
#pragma unroll
    for (int k = 0; k < COUNT; ++k) {
      loaded[k] = next[k];
    }
    const Ranks labels = next_labels;
    if (c + self.count < rows.C) {
      load_class<COUNT, 1, WHOLE>(next, rows, first, c + self.count);
      next_labels = rows.ranks_of(c + self.count);
    }
    if (c >= 0) {
      write_class<COUNT, 1, WHOLE, LOGITS>(rows, first, c, loaded, labels);
    }
  }
}

// At most 8 rows of a class at a time, for which there are registers.
template <
    int FRAMES,
    int STEP,
    bool WHOLE,
    bool LOGITS,
    typename Element,
    typename Scores>
METAL_FUNC void write_all_rows(Rows<Element, Scores> rows, Threads self) {
  constexpr int COUNT = FRAMES < 8 * STEP ? FRAMES / STEP : 8;
#pragma unroll 1
  for (int begin = 0; begin < FRAMES; begin += COUNT * STEP) {
    if (STEP > 1) {
      write_side_by_side<COUNT, STEP, WHOLE, LOGITS>(rows, begin, self);
    } else {
      write_long<COUNT, WHOLE, LOGITS>(rows, begin, self);
    }
  }
}

// Called by all threads of a threadgroup; STEP rows are written side by side.
template <int FRAMES, int STEP, bool LOGITS, typename Element, typename Scores>
METAL_FUNC void write_rows(Rows<Element, Scores> rows, Threads self) {
  if (rows.count_with_paths == FRAMES) {
    write_all_rows<FRAMES, STEP, true, LOGITS>(rows, self);
  } else {
    write_all_rows<FRAMES, STEP, false, LOGITS>(rows, self);
  }
}
