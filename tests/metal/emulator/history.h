// The rule for data races, for one byte of memory: who touched it last, and
// whether a barrier lies between that and what is touching it now.
//
// Barriers are met by all threads of a threadgroup (or simdgroup) together, so
// counting them is enough to know what is ordered: no vector clocks.

#pragma once

#include <cstdint>

#include "thread.h"

namespace emulator {

// Who accesses memory, and how many barriers *for that memory* it has passed:
// threadgroup_barrier(mem_device) does not count for threadgroup memory.
struct Moment {
  uint32_t threadgroup;
  uint32_t thread;
  uint32_t threadgroup_barriers;
  uint32_t simdgroup_barriers;

  uint32_t simdgroup() const {
    return thread / SIMDGROUP_SIZE;
  }
};

inline bool same_thread(const Moment& a, const Moment& b) {
  return a.threadgroup == b.threadgroup && a.thread == b.thread;
}

// Nothing orders two threadgroups of one launch.
inline bool threadgroup_barrier_between(const Moment& then, const Moment& now) {
  return then.threadgroup == now.threadgroup &&
      then.threadgroup_barriers != now.threadgroup_barriers;
}

inline bool simdgroup_barrier_between(const Moment& then, const Moment& now) {
  return then.threadgroup == now.threadgroup &&
      then.simdgroup() == now.simdgroup() &&
      then.simdgroup_barriers != now.simdgroup_barriers;
}

inline bool barrier_between(const Moment& then, const Moment& now) {
  return threadgroup_barrier_between(then, now) ||
      simdgroup_barrier_between(then, now);
}

// What happened to one byte since the launch began (for threadgroup memory,
// since the threadgroup began).
class History {
 public:
  // The write that a read or write at `now` races with, if there is one.
  const Moment* unordered_write(const Moment& now) const {
    bool ordered =
        !written_ || same_thread(write_, now) || barrier_between(write_, now);
    return ordered ? nullptr : &write_;
  }

  // A read that a write at `now` races with, if there is one.
  const Moment* unordered_read(const Moment& now) const {
    bool ordered = true;
    switch (readers_) {
      case Readers::None:
        break;
      case Readers::OneThread:
        ordered = same_thread(read_, now) || barrier_between(read_, now);
        break;
      case Readers::SeveralThreads:
        ordered = barrier_between(read_, now);
        break;
      case Readers::SeveralSimdgroups:
        ordered = threadgroup_barrier_between(read_, now);
        break;
      case Readers::SeveralThreadgroups:
        ordered = false;
        break;
    }
    return ordered ? nullptr : &read_;
  }

  void record_write(const Moment& now) {
    written_ = true;
    write_ = now;
    readers_ = Readers::None; // those until now are ordered before this write
  }

  void record_read(const Moment& now) {
    readers_ = readers_including(now);
    read_ = now;
  }

 private:
  // How widely the byte was read since the last write, leaving out readers
  // that a barrier has ordered before the latest one.
  enum class Readers : uint8_t {
    None,
    OneThread,
    SeveralThreads, // of one simdgroup
    SeveralSimdgroups,
    SeveralThreadgroups,
  };

  Readers readers_including(const Moment& now) const {
    if (readers_ == Readers::None) {
      return Readers::OneThread;
    }
    if (readers_ == Readers::SeveralThreadgroups ||
        read_.threadgroup != now.threadgroup) {
      return Readers::SeveralThreadgroups;
    }
    if (threadgroup_barrier_between(read_, now)) {
      return Readers::OneThread;
    }
    if (readers_ == Readers::SeveralSimdgroups ||
        read_.simdgroup() != now.simdgroup()) {
      return Readers::SeveralSimdgroups;
    }
    if (simdgroup_barrier_between(read_, now)) {
      return Readers::OneThread;
    }
    if (readers_ == Readers::SeveralThreads || read_.thread != now.thread) {
      return Readers::SeveralThreads;
    }
    return Readers::OneThread;
  }

  Moment write_; // the last one
  Moment read_; // the last one
  bool written_ = false;
  Readers readers_ = Readers::None;
};

} // namespace emulator
