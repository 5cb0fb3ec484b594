# Threads that the system does not start leave their work to the others.

import preload
import pytest

# Fails as the system does when a process has all the threads that it may have.
SHIM = """
#include <cerrno>
#include <dlfcn.h>
#include <pthread.h>

static int threads_left = 1 << 30;
extern "C" void allow_threads(int count) { threads_left = count; }

extern "C" int pthread_create(
    pthread_t* thread,
    const pthread_attr_t* attributes,
    void* (*start)(void*),
    void* argument) {
  static auto create =
      (decltype(&pthread_create))dlsym(RTLD_NEXT, "pthread_create");
  return threads_left-- > 0 ? create(thread, attributes, start, argument) : EAGAIN;
}
"""

PROGRAM = """
import ctypes, sys
import mlx.core as mx, numpy as np
sys.path.insert(0, sys.argv[2])
import ops
from problems import random_problem
from mlx_ctc import beam_search_decode, ctc_loss

mx.set_default_device(mx.cpu)
# Worth eight threads.
problem = random_problem(np.random.default_rng(0), T=200, N=33, S=50)
x, *rest = problem.arrays()
options = problem.options

def losses(x):
    return ctc_loss(x, *rest, reduction="none", **options)

mx.eval(x + 1)  # starts MLX's own thread
ctypes.CDLL(sys.argv[1]).allow_threads(int(sys.argv[3]))

for _ in range(3):
    gradient = mx.grad(lambda x: losses(x).sum())(x)
    for array in [gradient, *ops.all_results(x, *rest, **options)]:
        print(np.array(array).tobytes().hex())
    print(beam_search_decode(x, rest[1], 20, with_logits=True))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, request):
    shim = preload.compile_library(SHIM, tmp_path_factory.mktemp("shim"))

    def run(threads, allowed):
        result = preload.run_with(
            shim,
            PROGRAM,
            str(request.path.parent),
            str(allowed),
            MLX_CTC_NUM_THREADS=str(threads),
        )
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        return result.stdout

    return run


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_results_are_the_same_with_the_threads_that_start(run, allowed):
    assert run(8, allowed) == run(1, 1000)
