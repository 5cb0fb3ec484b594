// The steps of a round of the scan (scan_round.h): the two simdgroups of one
// window in one segment of frames.

#include "pointers.h"
#include "probabilities.h"
#include "sequence.h"
#include "tables.h"
#include "threads.h"
#include "window.h"

// Ring buffers that all windows share hold this many segments: more than lie
// between the first window's loads and the last blank.
constant constexpr int ring_segments = 32;

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
  Shared<uint64_t> final_states; // (2) the last blank and the last label

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

// What is stored of the sequence for the gradient: see tables.h.
template <int SEGMENT>
struct ScanTables {
  Device<uint64_t> checkpoints; // (B, 2, max(S, 1) + 1, 2)
  Device<uint> edges; // (B, V + 1, 3, 2, SEGMENT)
  int S;
  int V;

  METAL_FUNC Device<uint64_t> checkpoint(int segment, bool backward) const {
    return checkpoints +
        (int64_t(segment) * 2 + (backward ? 1 : 0)) * size_of_checkpoint(S);
  }
  METAL_FUNC Device<uint> edges_of(int segment, int receiver, int row) const {
    return edges + int64_t(segment) * size_of_edges(V, SEGMENT) +
        edge_offset(receiver, row, SEGMENT);
  }
};

// The tables of the n-th sequence.
template <int SEGMENT>
METAL_FUNC ScanTables<SEGMENT> scan_tables_of(
    int n,
    int T,
    int S,
    Device<uint64_t> checkpoints, // (N, B, 2, max(S, 1) + 1, 2)
    Device<uint> edges) { // (N, B, V + 1, 3, 2, SEGMENT)
  const int V = metal::max(windows_of(S), 1);
  const int64_t first_segment = int64_t(n) * ((T + SEGMENT - 1) / SEGMENT);
  return ScanTables<SEGMENT>{
      checkpoints + first_segment * 2 * size_of_checkpoint(S),
      edges + first_segment * size_of_edges(V, SEGMENT),
      S,
      V};
}

// The scan of alpha, or backward, of beta_p, over one sequence.
template <int SEGMENT, typename Sequence>
struct Scan {
  Sequence sequence;
  ScanMemory<SEGMENT> memory;
  ScanTables<SEGMENT> tables;
  bool backward;
  int segments;
  int windows; // at least 1
  int slots; // windows in a round, but for the last round

  METAL_FUNC Frames frames(int turn) const {
    return frames_of(turn, sequence.T_n, SEGMENT, segments, backward);
  }
  // To the next frame in scan order.
  METAL_FUNC int64_t frame_step() const {
    return backward ? -sequence.frame_stride : sequence.frame_stride;
  }
};

template <int SEGMENT, typename Sequence>
METAL_FUNC Scan<SEGMENT, Sequence> scan_of(
    Sequence sequence,
    ScanMemory<SEGMENT> memory,
    ScanTables<SEGMENT> tables,
    bool backward,
    int slots) {
  return Scan<SEGMENT, Sequence>{
      sequence,
      memory,
      tables,
      backward,
      (sequence.T_n + SEGMENT - 1) / SEGMENT,
      metal::max(windows_of(sequence.S_n), 1),
      slots};
}

// The window of this thread's two simdgroups, and this lane's pair of states.
struct ScanWindow {
  int index; // in the target
  bool is_last; // in the scan
  int slot; // in threadgroup memory: the index in this round of windows
  int next_slot; // that of the window after it in the scan
  Turns turns; // in which it is scanned
  Turns entering; // in which labels enter it
  Place place;
};

// A window is scanned only in the segments that paths can reach. Scores of
// log-probabilities are all read, to find invalid ones.
template <bool LOGITS, int SEGMENT, typename Sequence>
METAL_FUNC Turns turns_of_window(
    thread const Scan<SEGMENT, Sequence>& scan,
    int window,
    bool exists) {
  if (LOGITS && exists) {
    return turns_of(
        window,
        scan.sequence.T_n,
        scan.sequence.S_n,
        SEGMENT,
        scan.segments,
        scan.backward);
  }
  return Turns{0, exists ? scan.segments - 1 : -1};
}

// The window in a slot of the round whose windows are the `first`-th of the
// scan and those after it. In a slot that has no window no lane has states.
template <bool LOGITS, int SEGMENT, typename Sequence>
METAL_FUNC ScanWindow window_of_scan(
    thread const Scan<SEGMENT, Sequence>& scan,
    int first,
    int windows_in_round,
    int slot,
    int lane) {
  const bool backward = scan.backward;
  const bool exists = slot < windows_in_round;
  const int order = first + slot;
  const int index = backward ? scan.windows - 1 - order : order;
  const int before = backward ? index + 1 : index - 1;
  // In the scan of beta_p, lane 0 has the window's last label.
  const int label = index * 32 + (backward ? 31 - lane : lane);
  return ScanWindow{
      index,
      order == scan.windows - 1,
      slot,
      slot + 1 < windows_in_round ? slot + 1 : 0,
      turns_of_window<LOGITS>(scan, index, exists),
      turns_of_window<LOGITS>(scan, before, exists && order > 0),
      place_of(scan.sequence, label, backward ? -1 : 1)};
}

// Scores to probabilities: a window's second simdgroup ------------------------

// Scores that were loaded for the next segment.
template <int SEGMENT>
struct LoadedScores {
  float label_scores[SEGMENT]; // of this lane's label
  FrameScores frame_scores; // lane k has those of the k-th frame
};

template <int SEGMENT>
METAL_FUNC LoadedScores<SEGMENT> no_loaded_scores() {
  LoadedScores<SEGMENT> loaded;
#pragma unroll
  for (int k = 0; k < SEGMENT; ++k) {
    loaded.label_scores[k] = 0.0f;
  }
  loaded.frame_scores =
      FrameScores{0.0f, -metal::numeric_limits<float>::infinity()};
  return loaded;
}

// No valid log-probability is greater (extended_exp).
constant constexpr float score_limit = 2.9e6f;

// The segment's scale. The first window also stores it and the blank's
// probabilities, which are the same for all windows. Invalid logits are found
// by their normalisers, invalid log-probabilities here.
template <bool LOGITS, int SEGMENT, typename Sequence>
METAL_FUNC Scale store_blanks_and_scale(
    thread const Scan<SEGMENT, Sequence>& scan,
    ScanWindow window,
    int turn,
    FrameScores scores,
    thread bool& valid,
    int lane) {
  const ScanMemory<SEGMENT> memory = scan.memory;
  Scale scale = {0.0f, 0};
  if (window.slot > 0 && window.turns.contains(turn)) {
    scale = memory.scales[turn % ring_segments];
  }
  if (window.slot == 0 && turn >= 0 && turn < scan.segments) {
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

// The probabilities of this lane's label in all frames of the segment. If one
// is out of range, the last is NaN, which the range check finds.
template <bool LOGITS, int SEGMENT>
METAL_FUNC void store_labels(
    thread const float (&scores)[SEGMENT],
    Frames frames,
    bool has_states,
    Scale scale,
    Shared<float> p_labels, // (SEGMENT) of this lane, with a stride of 32
    thread bool& valid) {
  uint greatest = 0;
#pragma unroll
  for (int k = 0; k < SEGMENT; ++k) {
    p_labels[k * 32] = float_probability(scores[k], scale, greatest);
    valid = valid && (LOGITS || scores[k] < score_limit);
  }
  if (frames.count() < SEGMENT) {
    for (int k = 0; k < SEGMENT; ++k) {
      if (!frames.contains(k)) {
        p_labels[k * 32] = has_states ? p_label_after_end : 1.0f;
      }
    }
  }
  if (!is_in_range(greatest)) {
    p_labels[(SEGMENT - 1) * 32] = metal::numeric_limits<float>::quiet_NaN();
  }
}

// The scores of the segment's frames that all windows share.
template <bool LOGITS, int SEGMENT, typename Sequence>
METAL_FUNC FrameScores load_frame_scores_of(
    thread const Scan<SEGMENT, Sequence>& scan,
    int turn,
    int lane) {
  const Sequence sequence = scan.sequence;
  const Frames frames = scan.frames(turn);
  const int64_t t = frames.at(lane);
  return load_frame_scores<LOGITS>(
      sequence.scores_of_class(sequence.blank) + t * sequence.frame_stride,
      sequence.normalisers + t * 2,
      frames.contains(lane));
}

// One phase of a window's second simdgroup: stores the probabilities of the
// segment of `turn`, and loads the scores of the one after it.
template <bool LOGITS, int SEGMENT, typename Sequence>
METAL_FUNC void prepare_probabilities(
    thread LoadedScores<SEGMENT>& loaded,
    thread bool& valid,
    thread const Scan<SEGMENT, Sequence>& scan,
    ScanWindow window,
    int turn,
    int lane) {
  const Scale scale = store_blanks_and_scale<LOGITS>(
      scan, window, turn, loaded.frame_scores, valid, lane);
  if (window.slot == 0 && turn + 1 < scan.segments) {
    loaded.frame_scores = load_frame_scores_of<LOGITS>(scan, turn + 1, lane);
  }
  if (window.turns.contains(turn)) {
    store_labels<LOGITS>(
        loaded.label_scores,
        scan.frames(turn),
        window.place.has_states,
        scale,
        scan.memory.p_labels_of(window.slot, turn) + lane,
        valid);
  }
  if (window.turns.contains(turn + 1)) {
    const Frames next = scan.frames(turn + 1);
    load_scores(
        loaded.label_scores,
        scan.sequence.scores_of_class(window.place.y) +
            next.first * scan.sequence.frame_stride,
        scan.frame_step(),
        next);
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
template <int SEGMENT, typename Sequence>
METAL_FUNC ScanOutputs outputs_of(
    thread const Scan<SEGMENT, Sequence>& scan,
    ScanWindow window,
    int lane) {
  const ScanTables<SEGMENT> tables = scan.tables;
  const bool backward = scan.backward;
  const Place place = window.place;
  const int index = window.index;
  const int receiver =
      backward ? (index > 0 ? index - 1 : tables.V) : index + 1;
  const int row = backward ? beta_p_of_next_label : alpha_of_label_before;
  const int segment = scan.frames(window.turns.first).segment;
  const bool is_last = place.label == scan.sequence.S_n - 1;
  return ScanOutputs{
      tables.edges_of(segment, receiver, row),
      tables.edges_of(segment, index, beta_p_of_next_blank),
      tables.checkpoint(segment, backward),
      size_of_edges(tables.V, SEGMENT),
      size_of_checkpoint(tables.S),
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
template <int SEGMENT, typename Sequence>
METAL_FUNC LevelledPair
initial_state(thread const Scan<SEGMENT, Sequence>& scan, Place place) {
  LevelledPair state = unreached_pair();
  if (place.blank == (scan.backward ? scan.sequence.S_n : 0)) {
    state.blank = levelled_one();
  }
  return or_one(state, place.has_states);
}

// The label that enters the window with frame lane % SEGMENT. A round's first
// window reads what the last window of the round before has stored in `edges`.
template <bool ROUNDS, int SEGMENT, typename Sequence>
METAL_FUNC Levelled entering_label(
    thread const Scan<SEGMENT, Sequence>& scan,
    ScanWindow window,
    int turn,
    int lane) {
  const int k = lane % SEGMENT;
  if (!window.entering.contains(turn)) {
    return unreached();
  }
  if (ROUNDS && window.slot == 0) {
    const int row =
        scan.backward ? beta_p_of_next_label : alpha_of_label_before;
    const Device<uint> edge =
        scan.tables.edges_of(scan.frames(turn).segment, window.index, row);
    return edge_value(edge[k], edge[k + SEGMENT]);
  }
  const Shared<uint> inbox = scan.memory.inbox_of(window.slot, turn);
  return edge_value(inbox[k], inbox[k + SEGMENT]);
}

METAL_FUNC void
store_checkpoint(Device<uint64_t> checkpoint, Place place, LevelledPair state) {
  if (place.has_states) {
    checkpoint[2 * place.blank] = levelled_to_bits(state.blank);
    checkpoint[2 * place.label + 1] = levelled_to_bits(state.label);
  }
}

// One phase of a window's first simdgroup: advances its states over the segment
// of `turn`.
template <bool ROUNDS, int SEGMENT, typename Sequence>
METAL_FUNC void scan_segment(
    thread LevelledPair& state,
    thread ScanOutputs& outputs,
    thread const Scan<SEGMENT, Sequence>& scan,
    ScanWindow window,
    int turn,
    int lane) {
  if (!window.turns.contains(turn)) {
    return;
  }
  const ScanMemory<SEGMENT> memory = scan.memory;
  const Levelled entering = entering_label<ROUNDS>(scan, window, turn, lane);
  const Exits exits =
      exits_of(outputs, memory.inbox_of(window.next_slot, turn));
  const bool exact = scan_in_floats<SEGMENT>(
      state,
      entering,
      window.place,
      memory.p_blanks_of(turn),
      memory.p_labels_of(window.slot, turn) + lane,
      exits,
      lane);
  const Frames frames = scan.frames(turn);
  if (!exact) {
    scan_in_extended_range<SEGMENT>(
        state,
        entering,
        window.place,
        scan.sequence,
        frames,
        memory.scales[turn % ring_segments],
        exits,
        lane);
  }
  if (turn < window.turns.last) {
    store_checkpoint(outputs.checkpoint, window.place, state);
  }
  advance(outputs, frames.step);
}

// Keeps the states in which a path ends.
template <int SEGMENT, typename Sequence>
METAL_FUNC void store_final_states(
    thread const Scan<SEGMENT, Sequence>& scan,
    ScanWindow window,
    bool is_second, // simdgroup of the window
    LevelledPair state, // of the first
    Extended last_blank, // of the second
    int lane) {
  const Shared<uint64_t> final_states = scan.memory.final_states;
  const int S_n = scan.sequence.S_n;
  if (is_second && window.is_last && lane == 0) {
    final_states[0] = extended_to_bits(last_blank);
    if (S_n == 0) {
      final_states[1] = extended_to_bits(extended_zero());
    }
  }
  if (!is_second && window.place.has_states && window.place.label == S_n - 1) {
    final_states[1] = extended_to_bits(to_extended(state.label));
  }
}
