# Every kernel of the library, as csrc/gpu launches it: its text, and its results.

import ctc_on_emulator
import mlx.core as mx
import numpy as np
import pytest
from problems import assert_gradient_close, assert_loss_close, random_problem
from static_check import problems as problems_of_text

# Sizes that lead to each way of launching the kernels.
VARIANTS = {
    "one simdgroup": {"T": 30, "S": 8, "C": 9},
    "two simdgroups": {"T": 60, "S": 40, "C": 30},
    "four simdgroups": {"T": 110, "S": 100, "C": 30},
    "classes over several simdgroups": {"T": 3, "S": 2, "C": 16400},
    "long rows of classes": {"T": 12, "S": 5, "C": 1100},
    "short segments in long targets": {"T": 20, "S": 900, "C": 30},
}
DTYPES = [mx.float32, mx.float16, mx.bfloat16]
BATCHES = [3, 9]  # lengths in constant memory, and in device memory


def problem_of(variant, N=3, **options):
    sizes = VARIANTS[variant]
    problem = random_problem(np.random.default_rng(7), N=N, **sizes, **options)
    problem.target_lengths = np.minimum(problem.target_lengths, sizes["T"] // 2)
    return problem


def check(run, problem, dtype=mx.float32):
    loss, gradient = problem.expected(dtype)
    assert_loss_close(run.loss, loss, dtype)
    assert_gradient_close(run.gradient, gradient, dtype)
    return run


@pytest.mark.parametrize("with_logits", [False, True], ids=["log_probs", "logits"])
@pytest.mark.parametrize("N", BATCHES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_kernels(emulator, variant, N, with_logits):
    problem = problem_of(variant, N, with_logits=with_logits)
    run = check(ctc_on_emulator.run(emulator, problem), problem)
    for text in run.texts():
        assert problems_of_text(text) == []


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("N", BATCHES)
def test_kernels_of_each_dtype(emulator, dtype, N):
    problem = problem_of("two simdgroups", N)
    run = check(ctc_on_emulator.run(emulator, problem, dtype), problem, dtype)
    for text in run.texts():
        assert problems_of_text(text) == []
