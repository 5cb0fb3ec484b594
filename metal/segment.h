// One segment of a sequence's frames, and what the scan has left at its ends
// and between its windows.

#include "emissions.h"

struct Segment {
  int n;
  int S; // of the batch
  int T_n;
  int S_n;
  Frames frames;
  Band band;
};

METAL_FUNC Segment
segment_of(int n, int S, int T_n, int S_n, int begin, int size) {
  return Segment{
      n,
      S,
      T_n,
      S_n,
      frames_of(begin / size, T_n, size, 0, false),
      band_of(begin, begin + size, T_n, S_n)};
}

// What a sequence's frames hold from `begin` on, of the `room` that somebody
// writes: paths, or NaN in a bad item, and zeros behind them.
struct Contents {
  int paths;
  int bad;
};

METAL_FUNC Contents
contents_of(Extended partition, int input_length, int T, int begin, int room) {
  const bool bad = metal::isnan(partition.m);
  const bool length_known = !bad || partition.e == 0;
  const int T_n = length_known ? input_length : T;
  const int count = metal::clamp(T_n - begin, 0, room);
  return Contents{bad || is_zero(partition) ? 0 : count, bad ? count : 0};
}

METAL_FUNC bool has_path(Segment segment, int window) {
  return 32 * window >= segment.band.first && 32 * window <= segment.band.last;
}

// Whether the scan has left the window's states at the segment's ends.
METAL_FUNC bool has_alpha_before(Segment segment, int size, int window) {
  return segment.frames.first > 0 && 32 * window <= segment.band.last - size;
}

METAL_FUNC bool has_w_behind(Segment segment, int size, int window) {
  return segment.frames.first + size < segment.T_n &&
      32 * window >= segment.band.first + size;
}

struct Ends {
  Pair alpha; // before the segment
  Pair w; // behind it
  Extended left; // alpha's label that enters with frame lane % size
  Pair right; // and w's pair
};

// The scan's tables of a segment.
template <typename Checkpoints, typename Edges>
struct Tables {
  Checkpoints alpha; // of the segment before
  Checkpoints w; // of the one behind
  Edges edges;
};

template <typename Checkpoints, typename Edges>
METAL_FUNC Tables<Checkpoints, Edges> tables_of(
    Segment segment,
    int size, // of a segment
    Checkpoints checkpoints, // (N, B, 2, S + 1, 2)
    int B,
    Edges edges, // (N, B, V + 1, 3, 2, size)
    int receivers) { // V + 1
  const int64_t index = int64_t(segment.n) * B + segment.frames.segment;
  const int row = 2 * (segment.S + 1);
  const auto at = checkpoints + index * (2 * row);
  return Tables<Checkpoints, Edges>{
      at - 2 * row, at + 3 * row, edges + index * (receivers * 3 * 2 * size)};
}

// What enters window v with the segment's f-th frame: alpha of the label before
// it (row 0), w of the blank (1) and of the label (2) behind it.
template <typename Tables>
METAL_FUNC Extended edge_of(Tables tables, int row, int v, int size, int f) {
  const int k = row == 0 ? f : size - 1 - f;
  const auto at = tables.edges + (v * 3 + row) * 2 * size + k;
  return edge_number(at[0], at[size]);
}

template <typename Tables>
METAL_FUNC Ends ends_of(
    Segment segment,
    int size,
    Place place,
    Tables tables,
    int window,
    int lane) {
  const Pair no_pair = Pair{never_reached(), never_reached()};
  Ends ends = {no_pair, no_pair, never_reached(), no_pair};
  const int first = 32 * window; // label
  const Band band = segment.band;
  const bool from_left = window > 0 && first - 32 >= band.first;
  const bool from_right = first + 32 < segment.S_n && first + 32 <= band.last;
  if (segment.frames.first == 0 && place.blank == 0) {
    ends.alpha.blank = extended_one();
  }
  if (place.has_states && has_alpha_before(segment, size, window)) {
    ends.alpha.blank = unpack(tables.alpha[2 * place.blank]);
    ends.alpha.label = unpack(tables.alpha[2 * place.label + 1]);
  }
  if (place.has_states && has_w_behind(segment, size, window)) {
    ends.w.label = unpack(tables.w[2 * place.label + 1]);
    // A window's first blank is of the one before it in the scan of w.
    if (lane > 0 || window == 0 || has_w_behind(segment, size, window - 1)) {
      ends.w.blank = unpack(tables.w[2 * place.blank]);
    }
  }
  const int f = lane % size;
  if (from_left) {
    ends.left = edge_of(tables, 0, window, size, f);
  }
  ends.right.blank = edge_of(tables, 1, window, size, f);
  if (from_right) {
    ends.right.label = edge_of(tables, 2, window, size, f);
  }
  return ends;
}

// What the segment's windows have in common: its unit, and the blank's
// probabilities.
template <
    int FRAMES,
    bool LOGITS,
    typename Scores,
    typename Normalisers,
    typename Blanks>
METAL_FUNC Unit begin_segment(
    Segment segment,
    Scores blank, // (T)
    int64_t stride,
    Normalisers normalisers, // (T, 2)
    Blanks p_blank, // (FRAMES)
    int lane) {
  const bool has_frame = contains(segment.frames, lane);
  const int64_t t = frame_at(segment.frames, lane);
  return make_blanks<FRAMES>(
      frame_scores<LOGITS>(blank + t * stride, normalisers + t * 2, has_frame),
      has_frame,
      p_blank,
      lane);
}
