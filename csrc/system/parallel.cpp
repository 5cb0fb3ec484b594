#include "system/parallel.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>

#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#endif

namespace mlx_ctc::cpu {

namespace {

int available_cores() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    return std::max(1, CPU_COUNT(&set));
  }
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

// One call of parallel_for, shared by the threads that work on it.
struct Loop {
  Loop(int64_t n, const std::function<void(int64_t, int)>& body)
      : n(n), body(body) {}

  int64_t n;
  const std::function<void(int64_t, int)>& body;
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::exception_ptr error;

  void run(int worker) {
    for (int64_t i = next++; i < n; i = next++) {
      try {
        body(i, worker);
      } catch (...) {
        std::lock_guard lock(mutex);
        error = error ? error : std::current_exception();
        next = n;
      }
    }
  }
};

// Waking a sleeping thread takes longer than a small loop, and loops often
// follow one another, so a thread spins for a while before it sleeps.
constexpr auto spin_time = std::chrono::microseconds(100);

template <typename Value, typename Ready>
Value wait_for(const std::atomic<Value>& value, const Ready& ready) {
  auto end = std::chrono::steady_clock::now() + spin_time;
  Value current = value.load();
  while (!ready(current)) {
    if (std::chrono::steady_clock::now() < end) {
      std::this_thread::yield();
    } else {
      value.wait(current);
    }
    current = value.load();
  }
  return current;
}

// Threads that wait for a loop. They are started at the first loop and never
// end: a process may exit while they wait.
class Pool {
 public:
  // Starts fewer threads if the system refuses more, for example because of a
  // limit on a container's processes or on address space.
  explicit Pool(int threads) {
    try {
      while (started_ < threads) {
        int worker = started_ + 1;
        std::thread([this, worker] { serve(worker); }).detach();
        started_ = worker;
      }
    } catch (const std::exception&) {
      return;
    }
  }

  // Wakes the threads because a loop will follow soon.
  void wake() {
    call_ = Call{call_.load().generation + 1, 0};
    call_.notify_all();
  }

  // Runs the loop on the calling thread and on up to `helpers` of the pool's.
  void run(Loop& loop, int helpers) {
    helpers = std::min(helpers, started_);
    loop_ = &loop;
    running_ = helpers;
    call_ = Call{call_.load().generation + 1, helpers};
    call_.notify_all();
    loop.run(0);
    wait_for(running_, [](int running) { return running == 0; });
  }

 private:
  // One number, so that a thread that comes late does not take one loop's
  // helpers for another's.
  struct Call {
    uint32_t generation; // may wrap around
    int32_t helpers;
  };

  void serve(int worker) {
    uint32_t seen = 0;
    while (true) {
      Call call =
          wait_for(call_, [&](Call call) { return call.generation != seen; });
      seen = call.generation;
      if (worker <= call.helpers) {
        loop_->run(worker);
        if (--running_ == 0) {
          running_.notify_one();
        }
      }
    }
  }

  int started_ = 0;
  Loop* loop_ = nullptr;
  std::atomic<Call> call_ = Call{0, 0};
  std::atomic<int> running_ = 0;
};

// The pool of this process: a fork's child has none of its parent's threads.
Pool& pool() {
  static Pool* current = nullptr;
  static pid_t owner = 0;
  if (current == nullptr || owner != getpid()) {
    current = new Pool(max_threads() - 1);
    owner = getpid();
  }
  return *current;
}

// The pool runs one loop at a time. While it is busy, parallel_for runs another
// stream's loop on the calling thread alone.
std::mutex busy;

} // namespace

int max_threads() {
  static const int threads = [] {
    const char* wanted = std::getenv("MLX_CTC_NUM_THREADS");
    if (wanted == nullptr || *wanted == '\0') {
      return available_cores();
    }
    char* end;
    long number = std::strtol(wanted, &end, 10);
    if (*end != '\0' || number < 1 || number > 4096) {
      throw std::invalid_argument(
          std::string(
              "[mlx_ctc] Expected MLX_CTC_NUM_THREADS from 1 to 4096 "
              "but got ") +
          wanted + ".");
    }
    return static_cast<int>(number);
  }();
  return threads;
}

void expect_parallel_for() {
  std::unique_lock lock(busy, std::try_to_lock);
  if (max_threads() > 1 && lock.owns_lock()) {
    pool().wake();
  }
}

void parallel_for(int64_t n, const std::function<void(int64_t, int)>& body) {
  Loop loop(n, body);
  int helpers = std::min<int64_t>(n, max_threads()) - 1;
  std::unique_lock lock(busy, std::try_to_lock);
  if (helpers > 0 && lock.owns_lock()) {
    pool().run(loop, helpers);
  } else {
    loop.run(0);
  }
  if (loop.error) {
    std::rethrow_exception(loop.error);
  }
}

} // namespace mlx_ctc::cpu
