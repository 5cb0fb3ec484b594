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

// Whether a barrier has ordered the simdgroup of `then` before `now`.
inline bool barrier_between(const Moment& then, const Moment& now) {
  if (then.threadgroup != now.threadgroup) {
    return false; // nothing orders two threadgroups of one launch
  }
  if (then.threadgroup_barriers != now.threadgroup_barriers) {
    return true;
  }
  return then.simdgroup() == now.simdgroup() &&
      then.simdgroup_barriers != now.simdgroup_barriers;
}

inline bool same_thread(const Moment& a, const Moment& b) {
  return a.threadgroup == b.threadgroup && a.thread == b.thread;
}

// What happened to one byte since the launch began (for threadgroup memory,
// since the threadgroup began).
class History {
 public:
  // The write that a read or write at `now` races with, if there is one.
  const Moment* unordered_write(const Moment& now) const {
    bool races = written_ && !same_thread(write_, now) &&
        !barrier_between(write_, now);
    return races ? &write_ : nullptr;
  }

  // A read that a write at `now` races with, if there is one.
  const Moment* unordered_read(const Moment& now) const {
    if (readers_ == Readers::None) {
      return nullptr;
    }
    bool races;
    if (readers_ == Readers::SeveralThreadgroups) {
      races = true;
    } else if (read_.threadgroup != now.threadgroup) {
      races = true;
    } else if (read_.threadgroup_barriers != now.threadgroup_barriers) {
      races = false;
    } else if (readers_ == Readers::SeveralSimdgroups) {
      races = true;
    } else {
      bool alone =
          readers_ == Readers::OneThread && same_thread(read_, now);
      races = !alone && !barrier_between(read_, now);
    }
    return races ? &read_ : nullptr;
  }

  void record_write(const Moment& now) {
    written_ = true;
    write_ = now;
    readers_ = Readers::None; // they are ordered before this write
  }

  void record_read(const Moment& now) {
    if (readers_ == Readers::None) {
      readers_ = Readers::OneThread;
    } else if (read_.threadgroup != now.threadgroup) {
      readers_ = Readers::SeveralThreadgroups;
    } else if (readers_ != Readers::SeveralThreadgroups) {
      if (read_.threadgroup_barriers != now.threadgroup_barriers) {
        readers_ = Readers::OneThread;
      } else if (read_.simdgroup() != now.simdgroup()) {
        readers_ = Readers::SeveralSimdgroups;
      } else if (readers_ != Readers::SeveralSimdgroups) {
        if (read_.simdgroup_barriers != now.simdgroup_barriers) {
          readers_ = Readers::OneThread;
        } else if (read_.thread != now.thread) {
          readers_ = Readers::SeveralThreads;
        }
      }
    }
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

  Moment write_; // the last one
  Moment read_; // the last one
  bool written_ = false;
  Readers readers_ = Readers::None;
};

} // namespace emulator
