# How work is spread over the CPU's threads: csrc/system in a program of its own.

import os
import subprocess
import sys
from heapq import heapify, heapreplace
from itertools import pairwise
from pathlib import Path

import pytest
from tools import compiler

SYSTEM = Path(__file__).parent.parent / "csrc" / "system"

SOURCE = """
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include "system/parallel.h"

using namespace mlx_ctc::cpu;

// Where the shares of n items begin, of which item 0 costs `first` and every
// other one 10.
static void print_shares(int64_t n, int threads, int64_t first) {
  std::vector<int64_t> costs(n, 10);
  if (n > 0) costs[0] = first;
  for (int64_t begin : shares(costs, threads)) {
    std::printf("%lld ", (long long)begin);
  }
}

// How many of n items each of 4 threads takes, if one of them does not return
// from its first until the others have finished all that are left.
static void print_counts(int64_t n) {
  std::atomic<int64_t> others{0};
  std::atomic<int> stopped{-1};
  std::array<std::atomic<int64_t>, 4> counts{};
  parallel_for(n, 4, [&](int64_t, int worker) {
    ++counts[worker];
    int nobody = -1;
    if (!stopped.compare_exchange_strong(nobody, worker)) {
      ++others;
      return;
    }
    while (others < n - 1) {
      std::this_thread::yield();
    }
  });
  std::printf("%d ", stopped.load());
  for (auto& count : counts) {
    std::printf("%lld ", (long long)count.load());
  }
}

// Whether a second thread takes part in a loop for two, within a second.
static bool has_help() {
  auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  std::atomic<int> arrived{0};
  parallel_for(2, 2, [&](int64_t, int) {
    ++arrived;
    while (arrived < 2 && std::chrono::steady_clock::now() < end) {
      std::this_thread::yield();
    }
  });
  return std::chrono::steady_clock::now() < end;
}

// Whether a child has threads that is forked by one thread while another runs a
// loop.
static void print_help_of_a_child() {
  std::atomic<bool> is_running{false}, is_forked{false};
  int status = 0;
  std::thread forking([&] {
    while (!is_running) std::this_thread::yield();
    pid_t child = fork();
    if (child == 0) _exit(has_help());
    is_forked = true;
    waitpid(child, &status, 0);
  });
  parallel_for(4, 4, [&](int64_t, int) {
    is_running = true;
    while (!is_forked) std::this_thread::yield();
  });
  forking.join();
  std::printf("%d", WEXITSTATUS(status));
}

// How many of 100 loops have help while another thread expects loops.
static void print_help_beside_expectation() {
  std::atomic<bool> ends{false};
  std::thread expecting([&] {
    while (!ends) expect_parallel_for(4);
  });
  int count = 0;
  for (int i = 0; i < 100; ++i) {
    count += has_help();
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  ends = true;
  expecting.join();
  std::printf("%d", count);
}

int main(int, char** argv) {
  std::string command = argv[1];
  if (command == "shares") {
    print_shares(std::atoll(argv[2]), std::atoi(argv[3]), std::atoll(argv[4]));
  } else if (command == "counts") {
    print_counts(std::atoll(argv[2]));
  } else if (command == "child") {
    print_help_of_a_child();
  } else if (command == "expectation") {
    print_help_beside_expectation();
  } else if (command == "threads_for") {
    std::printf("%d", threads_for(std::atoll(argv[2])));
  }
}
"""

# Threads that the system starts and then never runs.
NEVER_RUN = """
#include <atomic>
#include <cstdio>
#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

#include "system/parallel.h"

static void* sleep_for_ever(void*) {
  while (true) pause();
}

extern "C" int pthread_create(
    pthread_t* thread, const pthread_attr_t* attributes, void* (*)(void*), void*) {
  auto create = (decltype(&pthread_create))dlsym(RTLD_NEXT, "pthread_create");
  return create(thread, attributes, sleep_for_ever, nullptr);
}

int main() {
  std::atomic<int> done{0};
  mlx_ctc::cpu::parallel_for(500, 4, [&](int64_t, int) { ++done; });
  std::printf("%d", done.load());
}
"""


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")

    def build(name, text):
        (folder / f"{name}.cpp").write_text(text)
        command = [compiler(), "-std=c++20", "-O1", "-pthread", "-rdynamic"]
        files = [folder / f"{name}.cpp", SYSTEM / "parallel.cpp", "-o", folder / name]
        subprocess.run([*command, f"-I{SYSTEM.parent}", *files, "-ldl"], check=True)

        def run(*arguments):
            result = subprocess.run(
                [folder / name, *map(str, arguments)],
                env={**os.environ, "MLX_CTC_NUM_THREADS": "4"},
                check=True,
                capture_output=True,
                text=True,
                timeout=60,
            )
            return [int(number) for number in result.stdout.split()]

        return run

    return build


@pytest.fixture(scope="module")
def run(build):
    return build("parallel", SOURCE)


@pytest.mark.parametrize("threads", [1, 2, 8, 300])
@pytest.mark.parametrize("n", [0, 1, 2, 50, 1000])
def test_shares_have_every_item_and_become_smaller(run, n, threads):
    begins = run("shares", n, threads, 10)
    sizes = [end - begin for begin, end in pairwise(begins)]
    assert sum(sizes) == n
    assert sizes == sorted(sizes, reverse=True)
    assert all(size > 0 for size in sizes)


def test_one_thread_has_one_share(run):
    assert run("shares", 1000, 1, 10) == [0, 1000]


def test_a_long_item_is_a_share(run):
    assert run("shares", 1000, 4, 5000)[:2] == [0, 1]


def seconds(begins, speeds):
    """What threads of these speeds take, each of which claims a share when free."""
    free_at = [(0.0, speed) for speed in speeds]
    heapify(free_at)
    for begin, end in pairwise(begins):
        time, speed = free_at[0]
        heapreplace(free_at, (time + (end - begin) / speed, speed))
    return max(free_at)[0]


@pytest.mark.parametrize(
    "speeds",
    [
        [1.0] * 4,
        [1.0] * 15 + [0.25],
        [1.0] * 4 + [1 / 3] * 4,  # Apple's efficiency cores
        [1.0] * 4 + [0.25] * 4,
        [1.0] * 12 + [0.25] * 4,
        [1.0, 0.25],
    ],
    ids=str,
)
def test_slow_threads_take_less_and_end_with_the_others(run, speeds):
    n = 1000
    together = n / sum(speeds)
    begins = run("shares", n, len(speeds), 10)
    assert seconds(begins, speeds) < 1.1 * together
    equal = [round(i * n / len(speeds)) for i in range(len(speeds) + 1)]
    if len({*speeds}) > 1:
        assert seconds(equal, speeds) > 1.9 * together


def test_a_stopped_thread_keeps_one_item(run):
    for _ in range(20):
        stopped, *counts = run("counts", 500)
        assert sum(counts) == 500
        assert counts[stopped] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="replaces glibc's pthread_create")
def test_threads_that_do_not_run_are_not_waited_for(build):
    assert build("never_run", NEVER_RUN)() == [500]


def test_a_child_that_is_forked_during_a_loop_has_threads(run):
    assert run("child") == [1]


def test_a_loop_has_threads_while_others_are_expected(run):
    (helped,) = run("expectation")
    assert helped >= 95


@pytest.mark.parametrize(
    ("work", "threads"), [(0, 1), (79_000, 1), (80_000, 2), (10**12, 4)]
)
def test_threads_are_as_many_as_the_work_is_worth(run, work, threads):
    assert run("threads_for", work) == [threads]
