# Too little memory is an error of the evaluation, or NaN, and leaves MLX working.

import mlx.core as mx
import numpy as np
import preload
import pytest

from mlx_ctc import _ext, ctc_loss


def too_long(T=4_000_000, S=2_000_000):
    """An alignment that needs terabytes: without checkpoints."""
    targets = mx.array((1 + np.arange(S) % 2).astype(np.int32))
    lengths = mx.array([T]), mx.array([S])
    return _ext.forced_align(
        mx.zeros((T, 1, 3)),
        targets[None],
        *lengths,
        0,
        with_logits=False,
        segment_frames=T,
        stream=mx.cpu,
    )


def test_an_alignment_that_does_not_fit_names_the_bytes():
    path, scores = too_long()
    says = (
        r"^\[forced_align\] Unable to allocate \d{13,} bytes for T = 4000000 frames "
        r"and S = 2000000 labels\.$"
    )
    for _ in range(3):
        with pytest.raises(RuntimeError, match=says):
            mx.eval(path, scores)
    with pytest.raises(RuntimeError, match=says):
        path.tolist()
    loss = ctc_loss(mx.zeros((4, 1, 3)), [[1]], 4, 1, stream=mx.cpu)
    assert loss.item() == pytest.approx(-np.log(10))


# operator new as the extension calls it, which fails on demand: in the tasks, that is
# on all threads but the first, or for workspaces, which ask for std::nothrow.
SHIM = """
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <new>
#include <sys/syscall.h>
#include <unistd.h>

static std::atomic<bool> tasks_fail{false};
static std::atomic<int> workspaces_to_fail{0};

extern "C" void fail_in_tasks(int on) { tasks_fail = on; }
extern "C" void fail_workspaces(int count) { workspaces_to_fail = count; }

static bool is_extension(void* caller) {
  Dl_info info;
  return dladdr(caller, &info) &&
      (strstr(info.dli_fname, "/_ext.") || strstr(info.dli_fname, "/libmlx_ctc_core."));
}

void* operator new(size_t size) {
  bool first_thread = syscall(SYS_gettid) == getpid();
  if (tasks_fail && !first_thread && is_extension(__builtin_return_address(0))) {
    throw std::bad_alloc();
  }
  if (void* memory = malloc(size ? size : 1)) return memory;
  throw std::bad_alloc();
}

void* operator new[](size_t size, const std::nothrow_t&) noexcept {
  if (is_extension(__builtin_return_address(0)) && workspaces_to_fail-- > 0) {
    return nullptr;
  }
  return malloc(size ? size : 1);
}

void operator delete(void* memory) noexcept { free(memory); }
void operator delete(void* memory, size_t) noexcept { free(memory); }
void operator delete[](void* memory) noexcept { free(memory); }
"""

PROGRAM = """
import ctypes, sys
import mlx.core as mx, numpy as np
sys.path.insert(0, sys.argv[2])
import ops
from problems import random_problem
from mlx_ctc import ctc_loss, greedy_decode

shim = ctypes.CDLL(sys.argv[1])
# Worth two threads.
problem = random_problem(np.random.default_rng(0), T=60, N=50, blank=2)
x, *rest = problem.arrays()
options = problem.options

def losses(x):
    return ctc_loss(x, *rest, reduction="none", **options)

def results():
    gradient = mx.grad(lambda x: losses(x).sum())(x)
    return [gradient, *ops.all_results(x, *rest, **options)]

expected = [np.array(a) for a in results()]
def same():
    return all(np.array_equal(a, b) for a, b in zip(results(), expected))
assert same()

shim.fail_in_tasks(1)
for _ in range(100):
    for a in map(np.array, results()):
        assert (np.isnan(a) if a.dtype.kind == "f" else a == 2).all(), a  # NaN or blank
    labels, counts, score, frames, probabilities = greedy_decode(
        x, rest[1], problem.blank, with_frames=True
    )
    assert (labels == 2).all() and not counts.any() and not frames.any(), counts
    assert mx.isnan(score).all() and mx.isnan(probabilities).all(), score
shim.fail_in_tasks(0)
assert same()

shim.fail_workspaces(1)  # for two threads: one then does all the work
assert np.array_equal(losses(x), expected[1])
shim.fail_workspaces(1 << 30)
for _ in range(100):
    try:
        mx.eval(losses(x))
        raise SystemExit("not refused")
    except RuntimeError as error:
        assert "[ctc_loss] Unable to allocate" in str(error), error
shim.fail_workspaces(0)
assert same()
print("done")
"""


def test_a_task_without_memory_gives_nan(tmp_path, request):
    shim = preload.compile_library(SHIM, tmp_path)
    result = preload.run_with(
        shim, PROGRAM, str(request.path.parent), MLX_CTC_NUM_THREADS="2"
    )
    assert result.stdout == "done\n", result.stderr
    assert "A CPU task failed: std::bad_alloc. Its results are NaN." in result.stderr
