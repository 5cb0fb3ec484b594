// The steps of scan.metal.

#include "pointers.h"
#include "probabilities.h"
#include "tables.h"
#include "window.h"

// Ring buffers that all windows share hold this many segments: more than lie
// between the first window's loads and the last blank.
constant constexpr int ring_segments = 32;

// The scan of alpha, or backward, of beta_p, over one sequence.
template <int SEGMENT>
struct Scan {
  int T_n;
  int S_n;
  int segments;
  bool backward;

  METAL_FUNC Frames frames(int turn) const {
    return frames_of(turn, T_n, SEGMENT, segments, backward);
  }
};

// The window of this thread's two simdgroups.
struct ScanWindow {
  int index; // in the target
  int order; // in the scan: it needs what leaves the window of order - 1
  int slot; // in threadgroup memory: the index in this round of windows
  int next_slot; // that of the window after it in the scan
  Turns turns; // in which it is scanned
  Turns entering; // in which labels enter it
};

// A window is scanned only in the segments that paths can reach. Scores of
// log-probabilities are all read, to find invalid ones.
template <bool LOGITS, int SEGMENT>
METAL_FUNC Turns turns_of_window(Scan<SEGMENT> scan, int window, bool exists) {
  if (LOGITS && exists) {
    return turns_of(
        window, scan.T_n, scan.S_n, SEGMENT, scan.segments, scan.backward);
  }
  return Turns{0, exists ? scan.segments - 1 : -1};
}

// The round's windows have orders from `first` on.
template <bool LOGITS, int SEGMENT>
METAL_FUNC ScanWindow window_of_scan(
    Scan<SEGMENT> scan,
    int first,
    int slot,
    int windows,
    int windows_in_round) {
  const bool exists = slot < windows_in_round;
  const int order = first + slot;
  const int index = scan.backward ? windows - 1 - order : order;
  const int before = scan.backward ? index + 1 : index - 1;
  return ScanWindow{
      index,
      order,
      slot,
      slot + 1 < windows_in_round ? slot + 1 : 0,
      turns_of_window<LOGITS>(scan, index, exists),
      turns_of_window<LOGITS>(scan, before, exists && order > 0)};
}

// Threadgroup memory. Probabilities and inboxes have two segments: one is
// written while the other is read.
template <int SEGMENT>
struct ScanMemory {
  Shared<float> p_labels; // (windows, 2, SEGMENT, 32)
  Shared<float> p_blanks; // (ring_segments, SEGMENT)
  Shared<Scale> scales; // (ring_segments)
  // (windows, 2, 2, SEGMENT) labels that enter each window. The first window's
  // receives the last label, which enters the last blank.
  Shared<uint> inbox;

  METAL_FUNC Shared<float> p_labels_of(int slot, int turn) const {
    return p_labels + (slot * 2 + (turn & 1)) * SEGMENT * 32;
  }
  METAL_FUNC Shared<float> p_blanks_of(int turn) const {
    return p_blanks + turn % ring_segments * SEGMENT;
  }
  METAL_FUNC Shared<uint> inbox_of(int slot, int turn) const {
    return inbox + (slot * 2 + (turn & 1)) * 2 * SEGMENT;
  }
};

// Scores to probabilities: a window's second simdgroup ------------------------

// Where scores are loaded from, and those loaded for the next segment.
template <int SEGMENT, typename Scores, typename Normalisers>
struct Loader {
  Scores blank_scores; // (T) of the sequence
  Scores next_label_scores; // from the next segment's first frame in scan order
  Normalisers normalisers; // (T, 2) of the sequence
  int64_t frame_stride;
  int64_t step; // frame_stride in the direction of the scan
  float label_scores[SEGMENT]; // of this lane's label
  FrameScores frame_scores; // lane k has those of the k-th frame
};

template <int SEGMENT, typename Scores, typename Normalisers>
METAL_FUNC Loader<SEGMENT, Scores, Normalisers> loader_of(
    Scores blank_scores,
    Scores label_scores,
    Normalisers normalisers,
    int64_t frame_stride,
    int64_t step) {
  Loader<SEGMENT, Scores, Normalisers> loader;
  loader.blank_scores = blank_scores;
  loader.next_label_scores = label_scores;
  loader.normalisers = normalisers;
  loader.frame_stride = frame_stride;
  loader.step = step;
#pragma unroll
  for (int k = 0; k < SEGMENT; ++k) {
    loader.label_scores[k] = 0.0f;
  }
  loader.frame_scores =
      FrameScores{0.0f, -metal::numeric_limits<float>::infinity()};
  return loader;
}

// No valid log-probability is greater (extended_exp).
constant constexpr float score_limit = 2.9e6f;

// The segment's scale. The first window also stores it and the blank's
// probabilities, which are the same for all windows. Invalid logits are found
// by their normalisers, invalid log-probabilities here.
template <bool LOGITS, int SEGMENT, typename Loader>
METAL_FUNC Scale store_blanks_and_unit(
    Scan<SEGMENT> scan,
    ScanWindow window,
    int turn,
    thread const Loader& loader,
    ScanMemory<SEGMENT> memory,
    thread bool& valid,
    int lane) {
  Scale scale = {0.0f, 0};
  if (window.slot > 0 && window.turns.contains(turn)) {
    scale = memory.scales[turn % ring_segments];
  }
  if (window.slot == 0 && turn >= 0 && turn < scan.segments) {
    const FrameScores scores = loader.frame_scores;
    const bool has_frame = scan.frames(turn).contains(lane);
    scale = store_p_blanks<SEGMENT>(
        scores, has_frame, memory.p_blanks_of(turn), lane);
    if (lane == 0) {
      memory.scales[turn % ring_segments] = scale;
    }
    valid = valid && (LOGITS || !has_frame || scores.blank < score_limit);
  }
  return scale;
}

// The probabilities of this lane's label in all frames of the segment.
template <bool LOGITS, int SEGMENT, typename Loader>
METAL_FUNC void store_labels(
    Frames frames,
    bool has_states,
    Scale scale,
    thread const Loader& loader,
    Shared<float> p_labels, // (SEGMENT) of this lane, with a stride of 32
    thread bool& valid) {
#pragma unroll
  for (int k = 0; k < SEGMENT; ++k) {
    const float score = loader.label_scores[k];
    p_labels[k * 32] = float_probability(score, scale);
    valid = valid && (LOGITS || score < score_limit);
  }
  if (frames.count() < SEGMENT) {
    for (int k = 0; k < SEGMENT; ++k) {
      if (!frames.contains(k)) {
        p_labels[k * 32] = has_states ? p_label_after_end : 1.0f;
      }
    }
  }
}

// Loads the scores of the blank, for the first window, and of the labels.
template <bool LOGITS, int SEGMENT, typename Loader>
METAL_FUNC void load_frame_scores_of(
    Scan<SEGMENT> scan,
    int turn,
    thread Loader& loader,
    int lane) {
  const Frames frames = scan.frames(turn);
  const int64_t t = frames.at(lane);
  loader.frame_scores = load_frame_scores<LOGITS>(
      loader.blank_scores + t * loader.frame_stride,
      loader.normalisers + t * 2,
      frames.contains(lane));
}

template <int SEGMENT, typename Loader>
METAL_FUNC void
load_label_scores_of(Scan<SEGMENT> scan, int turn, thread Loader& loader) {
  load_scores(
      loader.label_scores,
      loader.next_label_scores,
      loader.step,
      scan.frames(turn));
  loader.next_label_scores += SEGMENT * loader.step;
}

// One phase of a window's second simdgroup: stores the probabilities of the
// segment of `turn`, and loads the scores of the one after it.
template <bool LOGITS, int SEGMENT, typename Loader>
METAL_FUNC void prepare_probabilities(
    Scan<SEGMENT> scan,
    ScanWindow window,
    Place place,
    int turn,
    thread Loader& loader,
    ScanMemory<SEGMENT> memory,
    thread bool& valid,
    int lane) {
  const Scale scale = store_blanks_and_unit<LOGITS>(
      scan, window, turn, loader, memory, valid, lane);
  if (window.slot == 0 && turn + 1 < scan.segments) {
    load_frame_scores_of<LOGITS>(scan, turn + 1, loader, lane);
  }
  if (window.turns.contains(turn)) {
    store_labels<LOGITS, SEGMENT>(
        scan.frames(turn),
        place.has_states,
        scale,
        loader,
        memory.p_labels_of(window.slot, turn) + lane,
        valid);
  }
  if (window.turns.contains(turn + 1)) {
    load_label_scores_of(scan, turn + 1, loader);
  }
}

// The recursion: a window's first simdgroup ---------------------------------

// Where a window stores its results for the current segment. advance() moves
// the pointers to the next one.
struct ScanOutputs {
  Device<uint> edges_of_labels;
  Device<uint> edges_of_blanks;
  Device<uint64_t> checkpoint;
  int size_of_edges; // of one segment
  int size_of_checkpoint;
  bool stores_label; // of this lane, as in Exits
  bool stores_blank;
};

// What the scan passes on: the last lane's label enters the next window; the
// target's last label enters the last blank. The gradient needs beta_p of the
// window's first blank, and of the last blank.
template <int SEGMENT>
METAL_FUNC ScanOutputs outputs_of(
    Scan<SEGMENT> scan,
    ScanWindow window,
    Place place,
    int64_t first_segment, // of the sequence, in `edges` and `checkpoints`
    Device<uint> edges,
    Device<uint64_t> checkpoints,
    int S,
    int V,
    int lane) {
  const bool backward = scan.backward;
  const int index = window.index;
  const int receiver = backward ? (index > 0 ? index - 1 : V) : index + 1;
  const int row = backward ? beta_p_of_next_label : alpha_of_label_before;
  const int edges_size = size_of_edges(V, SEGMENT);
  const int checkpoint_size = size_of_checkpoint(S);
  const int64_t segment =
      first_segment + scan.frames(window.turns.first).segment;
  const Device<uint> edges_of_segment = edges + segment * edges_size;
  const bool is_last = place.label == scan.S_n - 1;
  return ScanOutputs{
      edges_of_segment + edge_offset(receiver, row, SEGMENT),
      edges_of_segment + edge_offset(index, beta_p_of_next_blank, SEGMENT),
      checkpoints + (segment * 2 + (backward ? 1 : 0)) * checkpoint_size,
      edges_size,
      checkpoint_size,
      place.has_states && (lane == 31 || (!backward && is_last)),
      place.has_states && backward && (lane == 0 || is_last)};
}

METAL_FUNC Exits exits_of(ScanOutputs outputs, Shared<uint> inbox) {
  return Exits{
      inbox,
      outputs.edges_of_labels,
      outputs.edges_of_blanks,
      outputs.stores_label,
      outputs.stores_blank};
}

METAL_FUNC void advance(thread ScanOutputs& outputs, int step) {
  outputs.edges_of_labels += step * outputs.size_of_edges;
  outputs.edges_of_blanks += step * outputs.size_of_edges;
  outputs.checkpoint += step * 2 * outputs.size_of_checkpoint;
}

// Before its first frame a path is in its first blank.
METAL_FUNC Pair initial_state(Place place, int first_blank) {
  Pair state = unreached_pair();
  if (place.blank == first_blank) {
    state.blank = extended_one();
  }
  return or_one(state, place.has_states);
}

// The label that enters the window with frame lane % SEGMENT. A round's first
// window reads what the last window of the round before has stored in `edges`.
template <bool ROUNDS, int SEGMENT>
METAL_FUNC Extended entering_label(
    Scan<SEGMENT> scan,
    ScanWindow window,
    int turn,
    Shared<uint> inbox, // (2, SEGMENT)
    Device<uint> edges, // of the sequence
    int V,
    int lane) {
  const int k = lane % SEGMENT;
  if (!window.entering.contains(turn)) {
    return unreached();
  }
  if (ROUNDS && window.slot == 0) {
    const int row =
        scan.backward ? beta_p_of_next_label : alpha_of_label_before;
    const int64_t at =
        int64_t(scan.frames(turn).segment) * size_of_edges(V, SEGMENT) +
        edge_offset(window.index, row, SEGMENT) + k;
    return edge_value(edges[at], edges[at + SEGMENT]);
  }
  return edge_value(inbox[k], inbox[k + SEGMENT]);
}

METAL_FUNC void
store_checkpoint(Device<uint64_t> checkpoint, Place place, Pair state) {
  if (place.has_states) {
    checkpoint[2 * place.blank] = extended_to_bits(state.blank);
    checkpoint[2 * place.label + 1] = extended_to_bits(state.label);
  }
}

// One phase of a window's first simdgroup: advances its states over the segment
// of `turn`.
template <bool ROUNDS, int SEGMENT, typename Scores>
METAL_FUNC void scan_segment(
    thread Pair& state,
    Scan<SEGMENT> scan,
    ScanWindow window,
    Place place,
    int turn,
    ScanMemory<SEGMENT> memory,
    thread ScanOutputs& outputs,
    Device<uint> edges, // of the sequence
    int V,
    Scores blank_scores, // (T)
    Scores label_scores, // (T)
    int64_t frame_stride,
    int lane) {
  const Frames frames = scan.frames(turn);
  const Extended entering = entering_label<ROUNDS>(
      scan, window, turn, memory.inbox_of(window.slot, turn), edges, V, lane);
  const Exits exits =
      exits_of(outputs, memory.inbox_of(window.next_slot, turn));
  const bool exact = scan_in_floats<SEGMENT>(
      state,
      entering,
      place,
      memory.p_blanks_of(turn),
      memory.p_labels_of(window.slot, turn) + lane,
      exits,
      lane);
  if (!exact) {
    const int64_t at = frames.first * frame_stride;
    scan_in_extended_range<SEGMENT>(
        state,
        entering,
        place,
        blank_scores + at,
        label_scores + at,
        scan.backward ? -frame_stride : frame_stride,
        frames,
        memory.scales[turn % ring_segments],
        exits,
        lane);
  }
  if (turn < window.turns.last) {
    store_checkpoint(outputs.checkpoint, place, state);
  }
  advance(outputs, frames.step);
}
