#include "system/parallel.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <numeric>
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

// Where a thread of the pool waits. The caller of a loop invites it; if it
// comes too late, the invitation is withdrawn, and nobody waits for it.
struct alignas(64) Seat { // a cache line of its own
  enum State : int { free, awake, invited, working };
  std::atomic<int> state = free;

  void set(State next) {
    state = next;
    state.notify_one();
  }

  bool change(State from, State to) {
    int expected = from;
    return state.compare_exchange_strong(expected, to);
  }
};

// Threads that wait for a loop. They are started at the first loop and never
// end: a process may exit while they wait. A fork's child has none of them.
class Pool {
 public:
  // Starts fewer threads if the system refuses more, for example because of a
  // limit on a container's processes or on address space.
  explicit Pool(int threads) : seats_(threads) {
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

  bool is_of_this_process() const {
    return owner_ == getpid();
  }

  // Wakes threads because a loop will follow soon. Any thread may call it, also
  // while run() runs.
  void wake(int helpers) {
    for (int i = 0; i < std::min(helpers, started_); ++i) {
      if (seats_[i].change(Seat::free, Seat::awake)) {
        seats_[i].state.notify_one();
      }
    }
  }

  // Runs the loop on the calling thread and on up to `helpers` of the pool's.
  void run(Loop& loop, int helpers) {
    std::span invited(seats_.data(), std::min(helpers, started_));
    loop_ = &loop;
    for (Seat& seat : invited) {
      seat.set(Seat::invited);
    }
    loop.run(0);
    for (Seat& seat : invited) {
      if (!seat.change(Seat::invited, Seat::free)) {
        wait_for(seat.state, [](int state) { return state != Seat::working; });
      }
    }
  }

 private:
  void serve(int worker) {
    Seat& seat = seats_[worker - 1];
    while (true) {
      wait_for(seat.state, [](int state) { return state != Seat::free; });
      seat.change(Seat::awake, Seat::free);
      if (seat.change(Seat::invited, Seat::working)) {
        loop_->run(worker);
        seat.set(Seat::free);
      }
    }
  }

  const pid_t owner_ = getpid();
  int started_ = 0;
  Loop* loop_ = nullptr;
  std::vector<Seat> seats_;
};

// The right to use the pool, which runs one loop at a time. Without it
// parallel_for runs its loop on the calling thread alone. Not a mutex: a child
// that is forked while a thread of its parent holds one could never lock it.
class Claim {
 public:
  explicit Claim(bool is_wanted) {
    pid_t process = getpid();
    pid_t before = taken_by;
    is_mine_ = is_wanted && before != process &&
        taken_by.compare_exchange_strong(before, process);
  }

  ~Claim() {
    if (is_mine_) {
      taken_by = 0;
    }
  }

  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;

  bool is_mine() const {
    return is_mine_;
  }

 private:
  static inline std::atomic<pid_t> taken_by = 0; // the process
  bool is_mine_;
};

std::atomic<Pool*> current_pool = nullptr;

// Null before the first loop of this process.
Pool* pool() {
  Pool* pool = current_pool;
  return pool != nullptr && pool->is_of_this_process() ? pool : nullptr;
}

Pool& pool_of(const Claim&) {
  if (pool() == nullptr) {
    current_pool = new Pool(max_threads() - 1);
  }
  return *pool();
}

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

int threads_for(int64_t nanoseconds) {
  // What a thread has to save: waking it, and the cache lines it exchanges.
  constexpr int64_t least = 40'000;
  return std::clamp<int64_t>(nanoseconds / least, 1, max_threads());
}

void expect_parallel_for(int threads) {
  int helpers = std::min(threads, max_threads()) - 1;
  if (helpers <= 0) {
    return;
  }
  // Without a claim, which a loop that begins now would miss.
  if (Pool* started = pool()) {
    started->wake(helpers);
  } else if (Claim claim(true); claim.is_mine()) {
    pool_of(claim).wake(helpers);
  }
}

void parallel_for(
    int64_t n,
    int threads,
    const std::function<void(int64_t, int)>& body) {
  Loop loop(n, body);
  int helpers = std::min<int64_t>({n, threads, max_threads()}) - 1;
  Claim claim(helpers > 0);
  if (claim.is_mine()) {
    pool_of(claim).run(loop, helpers);
  } else {
    loop.run(0);
  }
  if (loop.error) {
    std::rethrow_exception(loop.error);
  }
}

std::vector<int64_t> shares(std::span<const int64_t> costs, int threads) {
  // A share is a fourth of an equal part of what is left, so that a thread with
  // a fourth of the others' speed still ends with them.
  constexpr int64_t part = 4;
  int64_t left = std::reduce(costs.begin(), costs.end(), int64_t(0));
  std::vector<int64_t> begins = {0};
  int64_t share = 0;
  for (size_t i = 0; i < costs.size(); ++i) {
    share += costs[i];
    bool is_enough = threads > 1 && share * part * threads >= left;
    if (is_enough || i + 1 == costs.size()) {
      begins.push_back(i + 1);
      left -= share;
      share = 0;
    }
  }
  return begins;
}

} // namespace mlx_ctc::cpu
