// The scan of one window of 32 pairs over one segment of frames: in floats
// (floats.h), or if those are out of range, in extended range (recursion.h).

#include "pointers.h"
#include "probabilities.h"

// Where a lane stores, for each frame of the segment, its states before that
// frame. They are floats with levels, as edge_value() reads them.
struct Exits {
  Shared<uint> inbox; // of the window that is scanned next
  Device<uint> labels; // in `edges`
  Device<uint> blanks;
  bool stores_label; // the last lane's label enters the next window
  bool stores_blank; // the first lane's blank of beta_p, for the gradient
};

// Scan in floats ------------------------------------------------------------

// A span's floats and, `frames` words further, the level of each: two stores of
// 16 bytes.
METAL_FUNC void store_span_to_edges(
    Device<uint> to,
    int frames,
    int level,
    thread const float (&a)[span_frames]) {
  const uint e = as_type<uint>(level);
  const uint4 floats = {
      as_type<uint>(a[0]),
      as_type<uint>(a[1]),
      as_type<uint>(a[2]),
      as_type<uint>(a[3])};
  const uint4 levels = {e, e, e, e};
  *(device uint4*)to = floats;
  *(device uint4*)(to + frames) = levels;
}

// The same in threadgroup memory. The loops over floats and levels are
// separate, so that each becomes one store of 16 bytes.
METAL_FUNC void store_span_to_inbox(
    Shared<uint> to,
    int frames,
    int level,
    thread const float (&a)[span_frames]) {
#pragma unroll
  for (int k = 0; k < span_frames; ++k) {
    to[k] = as_type<uint>(a[k]);
  }
#pragma unroll
  for (int k = 0; k < span_frames; ++k) {
    to[frames + k] = as_type<uint>(level);
  }
}

template <int SEGMENT>
METAL_FUNC void store_span(
    Exits exits,
    int begin,
    LevelledPair levels,
    thread const float (&blanks)[span_frames],
    thread const float (&labels)[span_frames]) {
  if (exits.stores_label) {
    const int level = levels.label.e;
    store_span_to_inbox(exits.inbox + begin, SEGMENT, level, labels);
    store_span_to_edges(exits.labels + begin, SEGMENT, level, labels);
  }
  if (exits.stores_blank) {
    const int level = levels.blank.e;
    store_span_to_edges(exits.blanks + begin, SEGMENT, level, blanks);
  }
}

// Advances the lanes' states over a segment and returns true, if all floats are
// in range. Lane f has what enters the window with frame f % SEGMENT.
template <int SEGMENT>
METAL_FUNC bool scan_in_floats(
    thread LevelledPair& state,
    Levelled entering,
    Place place,
    Shared<float> p_blanks, // (SEGMENT)
    Shared<float> p_labels, // (SEGMENT) of this lane, with a stride of 32
    Exits exits,
    int lane) {
  const Levelled enters = on_levels_of_spans(entering);
  LevelledPair scanned = state;
  Range range = empty_range();
#pragma unroll
  for (int begin = 0; begin < SEGMENT; begin += span_frames) {
    const int level = metal::simd_broadcast(enters.e, begin);
    scanned = with_levels_of_alpha(on_new_levels(scanned), level, lane);
    const Predecessors factors = predecessors_of(scanned, level, place, lane);
    FloatPair floats = FloatPair{scanned.blank.m, scanned.label.m};
    float blanks[span_frames]; // before each frame
    float labels[span_frames];
    float p_blank[span_frames];
    float p_label[span_frames];
#pragma unroll
    for (int k = 0; k < span_frames; ++k) {
      p_blank[k] = p_blanks[begin + k];
      p_label[k] = p_labels[(begin + k) * 32];
    }
#pragma unroll
    for (int k = 0; k < span_frames; ++k) {
      blanks[k] = floats.blank;
      labels[k] = floats.label;
      const float from_window = metal::simd_broadcast(enters.m, begin + k);
      floats = alpha_step(
          floats, from_window, factors, p_blank[k], p_label[k], lane);
      extend(range, floats, k);
    }
    store_span<SEGMENT>(exits, begin, scanned, blanks, labels);
    scanned = with_floats(scanned, floats);
  }
  const bool exact = metal::simd_all(is_exact(range));
  if (exact) {
    state = scanned;
  }
  return exact;
}

// Scan in extended range ------------------------------------------------------

METAL_FUNC void store_frame(Exits exits, int k, int frames, LevelledPair a) {
  if (exits.stores_label) {
    exits.inbox[k] = as_type<uint>(a.label.m);
    exits.inbox[frames + k] = as_type<uint>(a.label.e);
    exits.labels[k] = as_type<uint>(a.label.m);
    exits.labels[frames + k] = as_type<uint>(a.label.e);
  }
  if (exits.stores_blank) {
    exits.blanks[k] = as_type<uint>(a.blank.m);
    exits.blanks[frames + k] = as_type<uint>(a.blank.e);
  }
}

template <int SEGMENT, typename Sequence>
METAL_FUNC void scan_in_extended_range(
    thread LevelledPair& state,
    Levelled entering,
    Place place,
    Sequence sequence,
    Frames frames,
    Scale scale,
    Exits exits,
    int lane) {
  const Extended enters = to_extended(entering);
  Pair numbers = or_zero(to_extended(state), place.has_states);
#pragma unroll 1
  for (int k = 0; k < SEGMENT; ++k) {
    store_frame(exits, k, SEGMENT, to_levelled(numbers));
    Extended p_blank = extended_one(); // p_blank_after_end
    Extended p_label = extended_zero(); // p_label_after_end
    if (frames.contains(k)) {
      const int t = frames.at(k);
      p_blank = probability(sequence.score(t, sequence.blank), scale);
      if (place.has_states) {
        p_label = probability(sequence.score(t, place.y), scale);
      }
    }
    numbers = alpha_step(
        numbers,
        value_of_lane(enters, k),
        place.label_before_to_label - allowed,
        p_blank,
        p_label,
        lane);
  }
  state = or_one(to_levelled(numbers), place.has_states);
}
