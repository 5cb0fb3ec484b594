// One segment of a sequence for the gradient and the posteriors: which frames
// it has, and what the scan has stored at its ends and between its windows.

#include "pointers.h"
#include "probabilities.h"
#include "sequence.h"
#include "tables.h"

// The frames that a threadgroup writes. Those with paths, or invalid ones, come
// first.
struct WrittenFrames {
  int count;
  int with_paths; // 0 if the target has no path
  int invalid; // frames of NaN
};

// Counts what a sequence has in frames t0 .. t0 + count - 1. If it has no paths
// there, or none are wanted, its S_n is set to 0: a sequence without labels.
template <typename Sequence>
METAL_FUNC WrittenFrames written_frames(
    thread Sequence& sequence,
    Extended z,
    int T,
    int t0,
    int count,
    bool wants_paths) {
  const bool invalid = is_invalid(z);
  // Lengths out of range are not used: all frames are NaN.
  const int length = is_out_of_range(z) ? T : sequence.T_n;
  const int in_sequence = metal::clamp(length - t0, 0, wants_paths ? count : 0);
  const int with_paths = invalid || is_zero(z) ? 0 : in_sequence;
  sequence.S_n = with_paths > 0 ? sequence.S_n : 0;
  return WrittenFrames{count, with_paths, invalid ? in_sequence : 0};
}

template <int SEGMENT>
struct Segment {
  int T_n;
  int S_n;
  Frames frames;
  Band band; // of windows that paths can be in
  // Checkpoints: alpha after the segment before, beta_p of the segment after.
  Device<const uint64_t> alpha;
  Device<const uint64_t> beta_p;
  Device<const uint> edges;

  METAL_FUNC bool has_path(int window) const {
    return 32 * window >= band.first && 32 * window <= band.last;
  }
  // Whether the scan has stored the window's states at the segment's ends: it
  // skips segments without a path.
  METAL_FUNC bool has_alpha(int window) const {
    return frames.first > 0 && 32 * window <= band.last - SEGMENT;
  }
  METAL_FUNC bool has_beta_p(int window) const {
    return frames.first + SEGMENT < T_n && 32 * window >= band.first + SEGMENT;
  }
  // What enters the window with the segment's f-th frame.
  METAL_FUNC Levelled edge(int row, int window, int f) const {
    const int k = row == alpha_of_label_before ? f : SEGMENT - 1 - f;
    const int at = edge_offset(window, row, SEGMENT) + k;
    return edge_value(edges[at], edges[at + SEGMENT]);
  }
};

// What the scan has stored of a sequence's states.
struct StoredStates {
  int S;
  int V;
  Device<const uint64_t> checkpoints; // (B, 2, max(S, 1) + 1, 2)
  Device<const uint> edges; // (B, V + 1, 3, 2, SEGMENT)
};

// The stored states of the n-th sequence.
template <int SEGMENT>
METAL_FUNC StoredStates stored_states_of(
    int n,
    int B,
    int V,
    int S,
    Device<const uint64_t> checkpoints, // (N, B, 2, max(S, 1) + 1, 2)
    Device<const uint> edges) { // (N, B, V + 1, 3, 2, SEGMENT)
  const int64_t first_segment = int64_t(n) * B;
  return StoredStates{
      S,
      V,
      checkpoints + first_segment * (2 * size_of_checkpoint(S)),
      edges + first_segment * size_of_edges(V, SEGMENT)};
}

// The segment that begins with frame `begin`.
template <int SEGMENT, typename Sequence>
METAL_FUNC Segment<SEGMENT> segment_of(
    thread const Sequence& sequence,
    bool has_paths,
    int begin,
    StoredStates stored) {
  const int T_n = has_paths ? sequence.T_n : begin;
  const int64_t index = begin / SEGMENT;
  const int checkpoint = size_of_checkpoint(stored.S);
  const Device<const uint64_t> at =
      stored.checkpoints + index * (2 * checkpoint);
  return Segment<SEGMENT>{
      T_n,
      sequence.S_n,
      frames_of(begin / SEGMENT, T_n, SEGMENT, 0, false),
      band_of(begin, begin + SEGMENT, T_n, sequence.S_n),
      at - 2 * checkpoint,
      at + 3 * checkpoint,
      stored.edges + index * size_of_edges(stored.V, SEGMENT)};
}

// The states around one window of the segment.
struct WindowEnds {
  LevelledPair alpha; // before the segment
  LevelledPair beta_p; // after it
  // Lane f has what enters with frame f % SEGMENT:
  Levelled label_before; // alpha
  LevelledPair next; // beta_p
};

template <int SEGMENT>
METAL_FUNC WindowEnds
ends_of(Segment<SEGMENT> segment, Place place, int window, int lane) {
  WindowEnds ends = {
      unreached_pair(), unreached_pair(), unreached(), unreached_pair()};
  const int first = 32 * window; // label
  const Band band = segment.band;
  const bool label_enters = window > 0 && first - 32 >= band.first;
  const bool next_enters = first + 32 < segment.S_n && first + 32 <= band.last;
  if (segment.frames.first == 0 && place.blank == 0) {
    ends.alpha.blank = levelled_one();
  }
  if (place.has_states && segment.has_alpha(window)) {
    ends.alpha.blank = levelled_from_bits(segment.alpha[2 * place.blank]);
    ends.alpha.label = levelled_from_bits(segment.alpha[2 * place.label + 1]);
  }
  if (place.has_states && segment.has_beta_p(window)) {
    ends.beta_p.label = levelled_from_bits(segment.beta_p[2 * place.label + 1]);
    // The scan of beta_p has a window's first blank in the window before.
    if (lane > 0 || window == 0 || segment.has_beta_p(window - 1)) {
      ends.beta_p.blank = levelled_from_bits(segment.beta_p[2 * place.blank]);
    }
  }
  const int f = lane % SEGMENT;
  if (label_enters) {
    ends.label_before = segment.edge(alpha_of_label_before, window, f);
  }
  ends.next.blank = segment.edge(beta_p_of_next_blank, window, f);
  if (next_enters) {
    ends.next.label = segment.edge(beta_p_of_next_label, window, f);
  }
  return ends;
}

// The scores of the segment's frames, and the scale of their probabilities.
template <typename Scores>
struct SegmentScores {
  Scores scores; // from the segment's first frame on
  int64_t frame_stride;
  int64_t class_stride;
  int blank;
  Scale scale;

  METAL_FUNC Scores of_class(int c) const {
    return scores + c * class_stride;
  }
};

// Threadgroup memory of one simdgroup.
struct GammaMemory {
  Shared<float> p_blanks; // (SEGMENT)
  Shared<float> p_labels; // (SEGMENT) of this lane, with a stride of 32
  Shared<float> blank_sums; // (SEGMENT) of gamma of the blanks
  Shared<float> label_sums; // (SEGMENT) of the labels
};

// What one simdgroup computes gamma of a segment from, and its memory.
template <int SEGMENT, typename Scores>
struct GammaTask {
  Segment<SEGMENT> segment;
  SegmentScores<Scores> scores;
  GammaMemory memory;
  Extended z;
};

// Stores what is the same for all windows, if the simdgroup takes part in them:
// the blank's probabilities, and sums of 0.
template <bool LOGITS, int SEGMENT, typename Sequence>
METAL_FUNC GammaTask<SEGMENT, typename Sequence::ScoresPointer> gamma_task_of(
    thread const Sequence& sequence,
    Segment<SEGMENT> segment,
    Extended z,
    GammaMemory memory,
    bool takes_part,
    int lane) {
  Scale scale = {0.0f, 0};
  if (takes_part) {
    const bool has_frame = segment.frames.contains(lane);
    const int64_t t = segment.frames.at(lane);
    const FrameScores frame = load_frame_scores<LOGITS>(
        sequence.scores_of_class(sequence.blank) + t * sequence.frame_stride,
        sequence.normalisers + t * 2,
        has_frame);
    scale = store_p_blanks<SEGMENT>(frame, has_frame, memory.p_blanks, lane);
    if (lane < SEGMENT) {
      memory.blank_sums[lane] = 0.0f;
      memory.label_sums[lane] = 0.0f;
    }
  }
  metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup);
  const SegmentScores<typename Sequence::ScoresPointer> scores = {
      sequence.scores + segment.frames.first * sequence.frame_stride,
      sequence.frame_stride,
      sequence.class_stride,
      sequence.blank,
      scale};
  return GammaTask<SEGMENT, typename Sequence::ScoresPointer>{
      segment, scores, memory, z};
}
