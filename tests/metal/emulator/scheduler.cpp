#include "scheduler.h"

#include <algorithm>
#include <numeric>
#include <sstream>

namespace emulator {

namespace {

Scheduler* running_scheduler = nullptr;

constexpr AddressSpace ADDRESS_SPACES[] = {
    AddressSpace::Device,
    AddressSpace::Threadgroup};

size_t index(AddressSpace space) {
  return static_cast<size_t>(space);
}

bool orders(uint32_t fences, AddressSpace space) {
  return fences &
      (space == AddressSpace::Device ? FENCE_DEVICE : FENCE_THREADGROUP);
}

Index3 divide(Index3 a, Index3 b) {
  return {a.x / b.x, a.y / b.y, a.z / b.z};
}

uint32_t linear_index(Index3 position, Index3 extent) {
  return position.x + extent.x * (position.y + extent.y * position.z);
}

std::string describe(const Thread& thread) {
  std::ostringstream text;
  text << "thread " << thread.attributes.thread_index_in_threadgroup;
  if (thread.state == Thread::State::Finished) {
    text << " has returned";
  } else {
    const Call& call = thread.meeting.call;
    text << " is at " << call.function << " (line " << call.line << ", column "
         << call.column << ")";
  }
  return text.str();
}

bool same_call(const Thread& a, const Thread& b) {
  return a.state == b.state && a.meeting.scope == b.meeting.scope &&
      a.meeting.call.line == b.meeting.call.line &&
      a.meeting.call.column == b.meeting.call.column &&
      a.call_path == b.call_path;
}

} // namespace

Scheduler::Scheduler(
    Kernel kernel,
    std::vector<void*> buffers,
    Index3 grid,
    Index3 threadgroup,
    Settings settings,
    Memory& memory)
    : kernel_(kernel),
      library_(library_of(reinterpret_cast<const void*>(kernel))),
      buffers_(std::move(buffers)),
      grid_(grid),
      threadgroup_(threadgroup),
      settings_(settings),
      memory_(memory),
      random_(settings.schedule),
      order_(threadgroup.volume()),
      threads_(threadgroup.volume()),
      exchanged_(threadgroup.volume()) {
  std::iota(order_.begin(), order_.end(), 0);
}

Scheduler* Scheduler::running() {
  return running_scheduler;
}

void Scheduler::run_threadgroup(Index3 position) {
  start_threads(position);
  for (;;) {
    run_threads_until_they_wait();
    if (all_finished()) {
      return;
    }
    // Simdgroups move independently of each other; only when none of them
    // can is it the turn of the barrier that all wait for.
    if (!release_simdgroups()) {
      release_threadgroup();
    }
  }
}

void Scheduler::start_threads(Index3 position) {
  memory_.forget_threadgroup_memory();
  uint32_t simdgroups = (threads_.size() + SIMDGROUP_SIZE - 1) / SIMDGROUP_SIZE;
  for (auto& barriers : barriers_) {
    barriers = {0, std::vector<uint32_t>(simdgroups, 0)};
  }
  for (uint32_t i = 0; i < threads_.size(); ++i) {
    Index3 local = {
        i % threadgroup_.x,
        i / threadgroup_.x % threadgroup_.y,
        i / threadgroup_.x / threadgroup_.y};
    Thread& thread = threads_[i];
    thread.attributes = {
        .thread_position_in_grid =
            {position.x * threadgroup_.x + local.x,
             position.y * threadgroup_.y + local.y,
             position.z * threadgroup_.z + local.z},
        .thread_position_in_threadgroup = local,
        .threadgroup_position_in_grid = position,
        .threads_per_grid = grid_,
        .threads_per_threadgroup = threadgroup_,
        .threadgroups_per_grid = divide(grid_, threadgroup_),
        .thread_index_in_threadgroup = i,
        .thread_index_in_simdgroup = i % SIMDGROUP_SIZE,
        .simdgroup_index_in_threadgroup = i / SIMDGROUP_SIZE,
        .simdgroups_per_threadgroup = simdgroups};
    thread.state = Thread::State::Running;
    thread.call_path.clear();
    thread.fiber->start([&] { kernel_(buffers_.data(), thread.attributes); });
  }
}

void Scheduler::run_threads_until_they_wait() {
  if (settings_.schedule != 0) {
    std::shuffle(order_.begin(), order_.end(), random_);
  }
  for (uint32_t i : order_) {
    Thread& thread = threads_[i];
    if (thread.state != Thread::State::Running) {
      continue;
    }
    current_ = i;
    running_scheduler = this;
    thread.fiber->resume();
    running_scheduler = nullptr;
    if (fault_) {
      throw *fault_;
    }
    if (thread.fiber->finished()) {
      thread.state = Thread::State::Finished;
    }
  }
}

bool Scheduler::all_finished() const {
  return std::all_of(threads_.begin(), threads_.end(), [](const Thread& t) {
    return t.state == Thread::State::Finished;
  });
}

// Lets the simdgroups go on whose threads wait at a simd operation or at a
// barrier of their own. Returns whether there was one.
bool Scheduler::release_simdgroups() {
  bool released = false;
  for (uint32_t begin = 0; begin < threads_.size(); begin += SIMDGROUP_SIZE) {
    uint32_t end = std::min<uint32_t>(begin + SIMDGROUP_SIZE, threads_.size());
    bool wanted = std::any_of(
        threads_.begin() + begin, threads_.begin() + end, [](const Thread& t) {
          return t.state == Thread::State::Waiting &&
              t.meeting.scope == Meeting::Scope::Simdgroup;
        });
    if (!wanted) {
      continue;
    }
    expect_same_meeting(begin, end);
    for (AddressSpace space : ADDRESS_SPACES) {
      if (orders(threads_[begin].meeting.fences, space)) {
        ++barriers_[index(space)].simdgroup[begin / SIMDGROUP_SIZE];
      }
    }
    for (uint32_t i = begin; i < end; ++i) {
      exchanged_[i] = threads_[i].meeting.payload;
      threads_[i].state = Thread::State::Running;
    }
    released = true;
  }
  return released;
}

// Lets all threads go on that wait at a threadgroup barrier.
void Scheduler::release_threadgroup() {
  expect_same_meeting(0, threads_.size());
  for (AddressSpace space : ADDRESS_SPACES) {
    if (orders(threads_[0].meeting.fences, space)) {
      ++barriers_[index(space)].threadgroup;
    }
  }
  for (Thread& thread : threads_) {
    thread.state = Thread::State::Running;
  }
}

void Scheduler::expect_same_meeting(uint32_t begin, uint32_t end) const {
  const Thread& first = threads_[begin];
  for (uint32_t i = begin + 1; i < end; ++i) {
    const Thread& thread = threads_[i];
    if (!same_call(first, thread)) {
      throw Fault{
          "divergent: " + describe(first) + ", but " + describe(thread)};
    }
    if (first.meeting.uniform != thread.meeting.uniform) {
      throw Fault{
          "not uniform: " + describe(first) + " with " +
          std::to_string(first.meeting.uniform) + ", but " + describe(thread) +
          " with " + std::to_string(thread.meeting.uniform)};
    }
  }
}

Lanes Scheduler::meet(const Meeting& meeting) {
  Thread& thread = threads_[current_];
  thread.meeting = meeting;
  thread.state = Thread::State::Waiting;
  thread.fiber->pause();
  uint32_t lane = current_ % SIMDGROUP_SIZE;
  uint32_t begin = current_ - lane;
  return {
      .count = std::min<uint32_t>(SIMDGROUP_SIZE, threads_.size() - begin),
      .self = lane,
      .payloads = &exchanged_[begin]};
}

Moment Scheduler::now(AddressSpace space) const {
  const ThreadAttributes& self = threads_[current_].attributes;
  const Barriers& barriers = barriers_[index(space)];
  return {
      .threadgroup = linear_index(
          self.threadgroup_position_in_grid, self.threadgroups_per_grid),
      .thread = current_,
      .threadgroup_barriers = barriers.threadgroup,
      .simdgroup_barriers =
          barriers.simdgroup[self.simdgroup_index_in_threadgroup]};
}

void Scheduler::access(
    const void* address,
    size_t size,
    bool is_write,
    const void* code) {
  if (Region* region = memory_.region_of(address)) {
    Access access = {address, size, is_write, now(region->space), code};
    if (auto fault = check_access(*region, access)) {
      fail(std::move(*fault));
    }
  } else if (
      !threads_[current_].fiber->owns(address) && !library_.contains(address)) {
    fail({"out of bounds: an address outside of all arrays", code});
  }
}

void Scheduler::fail(Fault fault) {
  fault_ = std::move(fault);
  threads_[current_].fiber->pause();
  __builtin_unreachable(); // a failed launch is not resumed
}

std::vector<const void*>& Scheduler::call_path() {
  return threads_[current_].call_path;
}

} // namespace emulator
