# Same input, same bits: in every run, in every process, for any number of threads.

import os
import subprocess
import sys

import mlx.core as mx
import pytest
from problems import random_problem


def run(rng):
    # Ragged batches of more and fewer items than threads; the last one is long
    # enough to be checkpointed.
    shapes = [(40, 17, 30, 9), (300, 3, 12, 100), (20000, 1, 5, 600)]
    for T, N, C, S in shapes:
        yield from random_problem(rng, T, N, C, S).run()


def digest(rng):
    from hashlib import sha256

    return sha256(b"".join(bytes(memoryview(array)) for array in run(rng))).hexdigest()


def test_reruns_give_the_same_bits(device, rng, dtype):
    problem = random_problem(rng, T=300, N=11, S=40)
    loss, gradient = problem.run(dtype)
    for _ in range(5):
        loss_again, gradient_again = problem.run(dtype)
        assert mx.array_equal(loss, loss_again)
        assert mx.array_equal(gradient, gradient_again)


def digest_in_a_process(threads):
    code = (
        "import numpy, test_determinism;"
        "print(test_determinism.digest(numpy.random.default_rng(0)))"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=os.path.dirname(__file__),
        env={**os.environ, "MLX_CTC_NUM_THREADS": threads},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@pytest.fixture(scope="module")
def digest_of_one_thread():
    return digest_in_a_process("1")


@pytest.mark.parametrize("threads", ["1", "2", "3", "16"])
def test_any_number_of_threads_gives_the_same_bits(digest_of_one_thread, threads):
    assert digest_in_a_process(threads) == digest_of_one_thread
