// alpha or w in one window of 32 pairs of states over one segment of frames, in
// the order of the scan: in floats, or without limits.

// Where a lane leaves what enters another window with each frame.
template <typename Inbox>
struct Exits {
  Inbox inbox; // the next window's, for the last lane's label
  device uint* edge; // the gradient's
  device uint* label_edge; // the next round's
  bool has_inbox;
  bool has_edge;
  bool has_label_edge;
  bool blank_at_edge; // or the label
};

template <typename Inbox>
METAL_FUNC Exits<Inbox> exits_of(
    Inbox inbox,
    device uint* edge,
    device uint* label_edge,
    bool has_inbox,
    bool has_edge,
    bool has_label_edge,
    bool blank_at_edge) {
  return Exits<Inbox>{
      inbox,
      edge,
      label_edge,
      has_inbox,
      has_edge,
      has_label_edge,
      blank_at_edge};
}

template <typename To>
METAL_FUNC void leave_number(To to, int k, int frames, Extended a) {
  to[k] = as_type<uint>(a.m);
  to[frames + k] = as_type<uint>(a.e);
}

// The blanks or the labels of a span.
METAL_FUNC void leave_span(
    device uint* to,
    int frames,
    Pair levels,
    thread const Floats (&a)[span],
    bool blanks) {
  const uint e = as_type<uint>(blanks ? levels.blank.e : levels.label.e);
  *(device uint4*)to = uint4{
      as_type<uint>(blanks ? a[0].blank : a[0].label),
      as_type<uint>(blanks ? a[1].blank : a[1].label),
      as_type<uint>(blanks ? a[2].blank : a[2].label),
      as_type<uint>(blanks ? a[3].blank : a[3].label)};
  *(device uint4*)(to + frames) = uint4{e, e, e, e};
}

template <int FRAMES, typename Inbox>
METAL_FUNC void leave_frame(Exits<Inbox> exits, int k, Pair a) {
  if (exits.has_inbox) {
    leave_number(exits.inbox, k, FRAMES, a.label);
  }
  if (exits.has_edge) {
    const Extended at_edge = choose(exits.blank_at_edge, a.blank, a.label);
    leave_number(exits.edge, k, FRAMES, at_edge);
  }
  if (exits.has_label_edge) {
    leave_number(exits.label_edge, k, FRAMES, a.label);
  }
}

// A span's frames at once, on the span's levels.
template <int FRAMES, typename Inbox>
METAL_FUNC void leave_frames(
    Exits<Inbox> exits,
    int begin,
    Pair levels,
    thread const Floats (&a)[span]) {
  if (exits.has_inbox) {
#pragma unroll
    for (int k = 0; k < span; ++k) {
      const Extended label = Extended{a[k].label, levels.label.e};
      leave_number(exits.inbox, begin + k, FRAMES, label);
    }
  }
  if (exits.has_edge) {
    leave_span(exits.edge + begin, FRAMES, levels, a, exits.blank_at_edge);
  }
  if (exits.has_label_edge) {
    leave_span(exits.label_edge + begin, FRAMES, levels, a, false);
  }
}

// Moves the lanes' states over a segment, if they stay in range, and tells
// whether they did. Lane k of each eight has what enters with the k-th frame.
template <int FRAMES, typename Blanks, typename Labels, typename Inbox>
METAL_FUNC bool scan_in_floats(
    thread Pair& state,
    Extended entering,
    Place place,
    Blanks p_blanks, // (FRAMES)
    Labels p_labels, // (FRAMES), this lane's, 32 apart
    Exits<Inbox> exits,
    int lane) {
  const Extended enters = on_common_levels(entering);
  Pair scanned = state;
  Extent extent = no_extent();
#pragma unroll
  for (int begin = 0; begin < FRAMES; begin += span) {
    const int level = metal::simd_broadcast(enters.e, begin);
    scanned = with_levels_of_alpha(on_new_levels(scanned), level, lane);
    const Arrivals to = arrivals(scanned, level, place, lane);
    Floats floats = Floats{scanned.blank.m, scanned.label.m};
    Floats before[span]; // each frame
    float p_blank[span];
    float p_label[span];
#pragma unroll
    for (int k = 0; k < span; ++k) {
      p_blank[k] = p_blanks[begin + k];
      p_label[k] = p_labels[(begin + k) * 32];
    }
#pragma unroll
    for (int k = 0; k < span; ++k) {
      before[k] = floats;
      const float from_window = metal::simd_broadcast(enters.m, begin + k);
      const float from_lane = metal::simd_shuffle_up(floats.label, 1);
      const float label_before = lane == 0 ? from_window : from_lane;
      floats = emit(arrive(floats, label_before, to), p_blank[k], p_label[k]);
      note(extent, floats, k);
    }
    leave_frames<FRAMES>(exits, begin, scanned, before);
    scanned = with_floats(scanned, floats);
  }
  const bool stayed = metal::simd_all(stayed_in_range(extent));
  if (stayed) {
    state = scanned;
  }
  return stayed;
}

// The same for any numbers.
template <int FRAMES, typename Scores, typename Inbox>
METAL_FUNC void scan_without_limits(
    thread Pair& state,
    Extended entering,
    Place place,
    Scores blank, // of the first frame in the order of the scan
    Scores label,
    int64_t stride,
    Frames frames,
    Unit unit,
    Exits<Inbox> exits,
    int lane) {
  const Extended enters = as_number(entering);
  Pair numbers = without_others(as_numbers(state), place.has);
#pragma unroll 1
  for (int k = 0; k < FRAMES; ++k) {
    leave_frame<FRAMES>(exits, k, from_numbers(numbers));
    if (contains(frames, k)) {
      const Extended p_blank = probability(float(blank[k * stride]), unit);
      Extended p_label = extended_zero();
      if (place.has.label) {
        p_label = probability(float(label[k * stride]), unit);
      }
      const Extended label_before =
          choose(lane == 0, broadcast(enters, k), shuffle_up(numbers.label));
      numbers = normalise(emit(
          arrive(numbers, label_before, place.jump - allowed),
          p_blank,
          p_label));
    }
  }
  state = with_all(from_numbers(numbers), place.has);
}
