# Same input, same bits: in every run, in every process, for any number of threads.

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from problems import random_problem


def test_reruns_give_the_same_bits(device, rng, dtype):
    problem = random_problem(rng, T=300, N=11, S=40)
    loss, gradient = problem.run(dtype)
    for _ in range(5):
        loss_again, gradient_again = problem.run(dtype)
        assert mx.array_equal(loss, loss_again)
        assert mx.array_equal(gradient, gradient_again)


def digest():
    """What the CPU makes of ragged batches of more and of fewer items than threads.

    The second is worth 16 threads, the third long enough for the gradient to be
    computed in several pieces.
    """
    mx.set_default_device(mx.cpu)
    rng, hashed = np.random.default_rng(0), sha256()
    for T, N, C, S in [(40, 17, 130, 9), (300, 40, 12, 100), (20000, 3, 5, 600)]:
        for array in random_problem(rng, T, N, C, S).run():
            hashed.update(np.array(array))
    return hashed.hexdigest()


def digest_in_a_process(threads):
    return subprocess.run(
        [sys.executable, "-c", "import test_determinism as t; print(t.digest())"],
        cwd=Path(__file__).parent,
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


@pytest.mark.parametrize("threads", ["0", "-1", "two", "2x"])
def test_a_wrong_number_of_threads_is_an_error(threads):
    with pytest.raises(subprocess.CalledProcessError) as error:
        digest_in_a_process(threads)
    expected = f"Expected MLX_CTC_NUM_THREADS from 1 to 4096 but got {threads}."
    assert expected in error.value.stderr
