// The gradient's rows of a few frames: a multiple of the softmax, less the sums
// of gamma by class.

template <
    typename Scores,
    typename Written,
    typename Softmax,
    typename Gammas,
    typename Classes>
struct Rows {
  using Element = Written;
  int C;
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

// A thread writes one class of so many rows at once, for which it has
// registers.
constant constexpr int most_rows = 8;

// What a thread needs of a class, in its rows from `first` on.
template <int COUNT>
struct Class {
  float scores[COUNT]; // 0 where no path is
  uint ranks; // of its labels, packed
};

template <int COUNT, int AT_ONCE, typename Rows>
METAL_FUNC void fetch(thread Class<COUNT>& found, Rows rows, int first, int c) {
  auto from = rows.scores + first * rows.frame_stride + c * rows.class_stride;
#pragma unroll
  for (int k = 0; k < COUNT; ++k) {
    found.scores[k] = 0.0f;
    if (first + k * AT_ONCE < rows.count) {
      found.scores[k] = float(*from);
    }
    from += AT_ONCE * rows.frame_stride;
  }
  found.ranks = rows.count > 0 ? rows.classes[c] : 0u;
}

// Rows from frame `begin` on, AT_ONCE side by side: a thread has one class of
// every AT_ONCE-th, and asks for the next class's scores before it uses this
// one's.
template <int COUNT, bool LOGITS, int AT_ONCE, typename Rows>
METAL_FUNC void
write_side_by_side(Rows rows, int begin, int thread_index, int threads) {
  const int width = threads / AT_ONCE;
  int row = 0; // of those side by side
#pragma unroll
  for (int k = 1; k < AT_ONCE; ++k) {
    row += thread_index >= k * width ? 1 : 0;
  }
  const int first = begin + row; // frame
  auto gradient = rows.gradient + first * rows.row_stride;
  int c = thread_index - row * width;
  Class<COUNT> next;
  if (c < rows.C) {
    fetch<COUNT, AT_ONCE>(next, rows, first, c);
  }
  for (; c < rows.C; c += width) {
    const Class<COUNT> now = next;
    if (c + width < rows.C) {
      fetch<COUNT, AT_ONCE>(next, rows, first, c + width);
    }
    const Ranks labels = ranks_of(now.ranks);
    float values[COUNT];
#pragma unroll
    for (int k = 0; k < COUNT; ++k) {
      const float2 softmax = rows.softmax[first + k * AT_ONCE];
      const float e =
          LOGITS ? share(now.scores[k] - softmax.x) : plain_exp(now.scores[k]);
      values[k] = e * softmax.y;
    }
    if (labels.begin < labels.end || c == rows.blank) {
      float sums[COUNT]; // of labels in the order of the target, and of blanks
#pragma unroll
      for (int k = 0; k < COUNT; ++k) {
        sums[k] = 0.0f;
      }
#pragma unroll 1
      for (int rank = labels.begin; rank < labels.end; ++rank) {
#pragma unroll
        for (int k = 0; k < COUNT; ++k) {
          sums[k] += rows.labels[(first + k * AT_ONCE) * rows.capacity + rank];
        }
      }
#pragma unroll
      for (int k = 0; k < COUNT; ++k) {
        const int f = first + k * AT_ONCE;
        sums[k] += c == rows.blank ? rows.blanks[f] : 0.0f;
        if (f < rows.count) {
          values[k] = metal::fma(sums[k], rows.scale[f], values[k]);
        }
      }
    }
    auto to = gradient + c;
#pragma unroll
    for (int k = 0; k < COUNT; ++k) {
      if (first + k * AT_ONCE < rows.here) {
        *to = typename Rows::Element(values[k]);
      }
      to += AT_ONCE * rows.row_stride;
    }
  }
}

template <int FRAMES, bool LOGITS, int AT_ONCE, typename Rows>
METAL_FUNC void write_at_once(Rows rows, int thread_index, int threads) {
  constexpr int COUNT = FRAMES < AT_ONCE ? 1
      : FRAMES < most_rows * AT_ONCE     ? FRAMES / AT_ONCE
                                         : most_rows;
#pragma unroll 1
  for (int begin = 0; begin < FRAMES; begin += COUNT * AT_ONCE) {
    write_side_by_side<COUNT, LOGITS, AT_ONCE>(
        rows, begin, thread_index, threads);
  }
}

// By all threads of a threadgroup: small rows several at a time.
template <int FRAMES, bool LOGITS, typename Rows>
METAL_FUNC void write_rows(Rows rows, int thread_index, int threads) {
  if (FRAMES >= 4 && threads >= 4 * rows.C) {
    write_at_once<FRAMES, LOGITS, 4>(rows, thread_index, threads);
  } else if (FRAMES >= 2 && threads >= 2 * rows.C) {
    write_at_once<FRAMES, LOGITS, 2>(rows, thread_index, threads);
  } else {
    write_at_once<FRAMES, LOGITS, 1>(rows, thread_index, threads);
  }
}
