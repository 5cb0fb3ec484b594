// The gradient's rows of a few frames: a multiple of the softmax, less the sums
// of gamma by class.

#include "classes.h"
#include "extended.h"

template <
    typename Scores,
    typename Written,
    typename Softmax,
    typename Gammas,
    typename Classes>
struct Rows {
  using Element = Written;
  int C;
  int offset; // of the first row from a multiple of 32 elements
  int blank;
  int count; // frames with a path; the rows behind them take softmax of 0
  int here; // frames to write
  Scores scores; // (count, C), by their strides
  int64_t frame_stride;
  int64_t class_stride;
  device Written* gradient; // (here, C), row_stride apart
  int64_t row_stride;
  Softmax softmax; // (FRAMES) the greatest score, and the multiple
  Gammas labels; // (FRAMES, capacity), those of a class side by side
  int capacity;
  Gammas blanks; // (FRAMES)
  Gammas scale; // (FRAMES) of gamma
  Classes classes; // (C) the ranks of their labels
};

template <
    typename Scores,
    typename Element,
    typename Softmax,
    typename Gammas,
    typename Classes>
METAL_FUNC Rows<Scores, Element, Softmax, Gammas, Classes> rows_of(
    int C,
    int offset,
    int blank,
    int count,
    int here,
    Scores scores,
    int64_t frame_stride,
    int64_t class_stride,
    device Element* gradient,
    int64_t row_stride,
    Softmax softmax,
    Gammas labels,
    int capacity,
    Gammas blanks,
    Gammas scale,
    Classes classes) {
  return Rows<Scores, Element, Softmax, Gammas, Classes>{
      C,
      offset,
      blank,
      count,
      here,
      scores,
      frame_stride,
      class_stride,
      gradient,
      row_stride,
      softmax,
      labels,
      capacity,
      blanks,
      scale,
      classes};
}

// The scores of class c in so many rows, every STEP-th from `first` on; 0 where
// no path is. WHOLE: there is one in all of them.
template <int COUNT, int STEP, bool WHOLE, typename Rows>
METAL_FUNC void
fetch_class(thread float (&scores)[COUNT], Rows rows, int first, int c) {
  auto from = rows.scores + first * rows.frame_stride + c * rows.class_stride;
#pragma unroll
  for (int k = 0; k < COUNT; ++k) {
    scores[k] = 0.0f;
    if (WHOLE || first + k * STEP < rows.count) {
      scores[k] = float(*from);
    }
    from += STEP * rows.frame_stride;
  }
}

// The class's gradient there, from its scores and its labels' ranks.
template <int COUNT, int STEP, bool WHOLE, bool LOGITS, typename Rows>
METAL_FUNC void write_class(
    Rows rows,
    int first,
    int c,
    thread const float (&scores)[COUNT],
    Ranks labels) {
  const auto softmax = rows.softmax + first;
  float values[COUNT];
#pragma unroll
  for (int k = 0; k < COUNT; ++k) {
    const float2 multiple = softmax[k * STEP];
    const float e =
        LOGITS ? share(scores[k] - multiple.x) : plain_exp(scores[k]);
    values[k] = e * multiple.y;
  }
  if (labels.begin < labels.end || c == rows.blank) {
    float sums[COUNT]; // of labels in the order of the target, and of blanks
#pragma unroll
    for (int k = 0; k < COUNT; ++k) {
      sums[k] = 0.0f;
    }
    auto gammas = rows.labels + first * rows.capacity + labels.begin;
#pragma unroll 1
    for (int rank = labels.begin; rank < labels.end; ++rank) {
#pragma unroll
      for (int k = 0; k < COUNT; ++k) {
        sums[k] += gammas[k * STEP * rows.capacity];
      }
      ++gammas;
    }
    const auto blanks = rows.blanks + first;
    const auto scale = rows.scale + first;
#pragma unroll
    for (int k = 0; k < COUNT; ++k) {
      sums[k] += c == rows.blank ? blanks[k * STEP] : 0.0f;
      if (WHOLE || first + k * STEP < rows.count) {
        values[k] = metal::fma(sums[k], scale[k * STEP], values[k]);
      }
    }
  }
  auto to = rows.gradient + first * rows.row_stride + c;
#pragma unroll
  for (int k = 0; k < COUNT; ++k) {
    if (WHOLE || first + k * STEP < rows.here) {
      *to = typename Rows::Element(values[k]);
    }
    to += STEP * rows.row_stride;
  }
}

// The ranks of a class's labels; none where no path is.
template <typename Rows>
METAL_FUNC Ranks labels_of(Rows rows, int c) {
  return ranks_of(rows.count > 0 ? rows.classes[c] : 0u);
}

// Several rows at once, side by side: each has a thread for every class.
template <int COUNT, int STEP, bool WHOLE, bool LOGITS, typename Rows>
METAL_FUNC void
write_side_by_side(Rows rows, int begin, int thread_index, int threads) {
  const int width = threads / STEP;
  int row = 0; // of those side by side
#pragma unroll
  for (int k = 1; k < STEP; ++k) {
    row += thread_index >= k * width ? 1 : 0;
  }
  const int first = begin + row;
  const int c = thread_index - row * width;
  if (c < rows.C) {
    float scores[COUNT];
    fetch_class<COUNT, STEP, WHOLE>(scores, rows, first, c);
    write_class<COUNT, STEP, WHOLE, LOGITS>(
        rows, first, c, scores, labels_of(rows, c));
  }
}

// Long rows: a thread asks for its next class's scores before it uses this
// one's. A simdgroup's first class is where a cache line begins, which may be
// before the row.
template <int COUNT, bool WHOLE, bool LOGITS, typename Rows>
METAL_FUNC void
write_long(Rows rows, int first, int thread_index, int threads) {
  float next[COUNT];
  Ranks next_labels = {0, 0};
  const int begin = thread_index - rows.offset;
  if (begin < rows.C) {
    fetch_class<COUNT, 1, WHOLE>(next, rows, first, metal::max(begin, 0));
    next_labels = labels_of(rows, metal::max(begin, 0));
  }
#pragma unroll 1
  for (int c = begin; c < rows.C; c += threads) {
    float scores[COUNT];
#pragma unroll
    for (int k = 0; k < COUNT; ++k) {
      scores[k] = next[k];
    }
    const Ranks labels = next_labels;
    if (c + threads < rows.C) {
      fetch_class<COUNT, 1, WHOLE>(next, rows, first, c + threads);
      next_labels = labels_of(rows, c + threads);
    }
    if (c >= 0) {
      write_class<COUNT, 1, WHOLE, LOGITS>(rows, first, c, scores, labels);
    }
  }
}

// A thread has one class of COUNT rows at a time, for which there are
// registers.
template <int FRAMES, int STEP, bool WHOLE, bool LOGITS, typename Rows>
METAL_FUNC void write_all(Rows rows, int thread_index, int threads) {
  constexpr int COUNT = FRAMES < 8 * STEP ? FRAMES / STEP : 8;
#pragma unroll 1
  for (int begin = 0; begin < FRAMES; begin += COUNT * STEP) {
    if (STEP > 1) {
      write_side_by_side<COUNT, STEP, WHOLE, LOGITS>(
          rows, begin, thread_index, threads);
    } else {
      write_long<COUNT, WHOLE, LOGITS>(rows, begin, thread_index, threads);
    }
  }
}

// By all threads of a threadgroup, STEP rows side by side. Almost always there
// is a path in all of them, and then nothing asks again.
template <int FRAMES, int STEP, bool LOGITS, typename Rows>
METAL_FUNC void write_rows(Rows rows, int thread_index, int threads) {
  if (rows.count == FRAMES) {
    write_all<FRAMES, STEP, true, LOGITS>(rows, thread_index, threads);
  } else {
    write_all<FRAMES, STEP, false, LOGITS>(rows, thread_index, threads);
  }
}
