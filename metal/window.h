// alpha or w in one window of 32 pairs of states over one segment of frames, in
// the order of the scan: in floats, or without limits.

#include "emissions.h"

// Where a lane leaves, for each frame, what its states were before it. The last
// lane's label enters the next window; the gradient needs the first lane's
// blank of w too.
template <typename Inbox>
struct Exits {
  Inbox inbox; // the next window's
  device uint* labels;
  device uint* blanks;
  bool leaves_label;
  bool leaves_blank;
};

template <typename Inbox>
METAL_FUNC Exits<Inbox> exits_of(
    Inbox inbox,
    device uint* labels,
    device uint* blanks,
    bool leaves_label,
    bool leaves_blank) {
  return Exits<Inbox>{inbox, labels, blanks, leaves_label, leaves_blank};
}

template <typename To>
METAL_FUNC void leave_number(To to, int k, int frames, Extended a) {
  to[k] = as_type<uint>(a.m);
  to[frames + k] = as_type<uint>(a.e);
}

METAL_FUNC void leave_span(
    device uint* to,
    int frames,
    int level,
    thread const float (&a)[span]) {
  const uint e = as_type<uint>(level);
  *(device uint4*)to = uint4{
      as_type<uint>(a[0]),
      as_type<uint>(a[1]),
      as_type<uint>(a[2]),
      as_type<uint>(a[3])};
  *(device uint4*)(to + frames) = uint4{e, e, e, e};
}

template <int FRAMES, typename Inbox>
METAL_FUNC void leave_frame(Exits<Inbox> exits, int k, Pair a) {
  if (exits.leaves_label) {
    leave_number(exits.inbox, k, FRAMES, a.label);
    leave_number(exits.labels, k, FRAMES, a.label);
  }
  if (exits.leaves_blank) {
    leave_number(exits.blanks, k, FRAMES, a.blank);
  }
}

// A span's frames at once, on the span's levels.
template <int FRAMES, typename Inbox>
METAL_FUNC void leave_frames(
    Exits<Inbox> exits,
    int begin,
    Pair levels,
    thread const float (&blanks)[span],
    thread const float (&labels)[span]) {
  if (exits.leaves_label) {
    // All floats and then all levels: they become two stores.
    const auto to = exits.inbox + begin;
#pragma unroll
    for (int k = 0; k < span; ++k) {
      to[k] = as_type<uint>(labels[k]);
    }
#pragma unroll
    for (int k = 0; k < span; ++k) {
      to[FRAMES + k] = as_type<uint>(levels.label.e);
    }
    leave_span(exits.labels + begin, FRAMES, levels.label.e, labels);
  }
  if (exits.leaves_blank) {
    leave_span(exits.blanks + begin, FRAMES, levels.blank.e, blanks);
  }
}

// Moves the lanes' states over a segment, if they stay in range, and tells
// whether they did. Lane k has what enters with frame k % FRAMES.
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
    float blanks[span]; // before each frame
    float labels[span];
    float p_blank[span];
    float p_label[span];
#pragma unroll
    for (int k = 0; k < span; ++k) {
      p_blank[k] = p_blanks[begin + k];
      p_label[k] = p_labels[(begin + k) * 32];
    }
#pragma unroll
    for (int k = 0; k < span; ++k) {
      blanks[k] = floats.blank;
      labels[k] = floats.label;
      const float from_window = metal::simd_broadcast(enters.m, begin + k);
      floats =
          step_of_alpha(floats, from_window, to, p_blank[k], p_label[k], lane);
      note(extent, floats, k);
    }
    leave_frames<FRAMES>(exits, begin, scanned, blanks, labels);
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
  Pair numbers = without_others(as_numbers(state), place.has_states);
#pragma unroll 1
  for (int k = 0; k < FRAMES; ++k) {
    leave_frame<FRAMES>(exits, k, from_numbers(numbers));
    // Behind the last frame only blanks follow.
    Extended p_blank = extended_one();
    Extended p_label = extended_zero();
    if (contains(frames, k)) {
      p_blank = probability(float(blank[k * stride]), unit);
      if (place.has_states) {
        p_label = probability(float(label[k * stride]), unit);
      }
    }
    numbers = step_of_alpha(
        numbers,
        broadcast(enters, k),
        place.jump - allowed,
        p_blank,
        p_label,
        lane);
  }
  state = with_all(from_numbers(numbers), place.has_states);
}
