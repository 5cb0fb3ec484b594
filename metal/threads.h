// The calling thread's place in its threadgroup. Simdgroups have 32 lanes.

struct Threads {
  int count; // threads in the threadgroup
  int index; // of this thread
  int simdgroup;
  int lane;

  METAL_FUNC int simdgroups() const {
    return count / 32;
  }
};
