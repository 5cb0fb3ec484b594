// Segments of frames, and which windows of a target paths can be in.
//
// The T_n frames of a sequence are divided into segments of `size` frames: 8 or
// 16, a power of two. A target's S_n labels are divided into windows of 32; a
// simdgroup works on one. The scan of alpha goes through the segments from the
// first to the last, that of beta_p from the last to the first: a segment's
// turn is its index in that order.

METAL_FUNC int windows_of(int labels) {
  return (labels + 31) / 32;
}

// The frames of one segment in the order of a scan: k = 0 .. size - 1, of which
// begin .. end - 1 are in the sequence. The others are after its last frame.
struct Frames {
  int segment;
  int begin;
  int end;
  int first; // the frame with k = 0
  int step; // from one frame to the next: 1 or -1

  METAL_FUNC int at(int k) const {
    return first + k * step;
  }
  METAL_FUNC bool contains(int k) const {
    return k >= begin && k < end;
  }
  METAL_FUNC int count() const {
    return end - begin;
  }
};

METAL_FUNC Frames
frames_of(int turn, int T_n, int size, int segments, bool backward) {
  const int segment = backward ? segments - 1 - turn : turn;
  const int t = segment * size;
  const int frames = metal::min(size, T_n - t);
  return backward ? Frames{segment, size - frames, size, t + size - 1, -1}
                  : Frames{segment, 0, frames, t, 1};
}

// A path passes at most one label per frame, and needs at least one frame for
// each label still to come. So a path can be in a window of 32 pairs only from
// first_frame() to last_frame(). Both include the frames in which the window
// passes something to a neighbour.
METAL_FUNC int first_frame(int window) {
  return metal::max(32 * window - 2, 0);
}

METAL_FUNC int last_frame(int window, int T_n, int S_n) {
  return metal::min(T_n - 1, T_n - S_n + 32 * window + 32);
}

// The turns in which a window is scanned.
struct Turns {
  int first;
  int last; // first - 1 if there are none

  METAL_FUNC bool contains(int turn) const {
    return turn >= first && turn <= last;
  }
};

METAL_FUNC Turns
turns_of(int window, int T_n, int S_n, int size, int segments, bool backward) {
  const int first = first_frame(window);
  const int last = last_frame(window, T_n, S_n);
  if (first > last) {
    return Turns{0, -1};
  }
  return Turns{
      backward ? segments - 1 - last / size : first / size,
      backward ? segments - 1 - first / size : last / size};
}

// The inverse of first_frame() and last_frame(): the first labels of the
// windows in which a path can be in frames begin .. end - 1.
struct Band {
  int first;
  int last;
};

METAL_FUNC Band band_of(int begin, int end, int T_n, int S_n) {
  return Band{begin - (T_n - S_n) - 32, end + 1};
}
