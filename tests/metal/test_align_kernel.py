# The alignment's kernel on the emulator: bit for bit the path that the CPU finds.

import ctc_on_emulator
import mlx.core as mx
import numpy as np
import pytest
from problems import random_problem
from static_check import problems as problems_of_text

from mlx_ctc import forced_align

# Sizes that lead to each way of launching it.
VARIANTS = {
    "one simdgroup": {"T": 30, "S": 8, "C": 9},
    "a block of frames less": {"T": 7, "S": 3, "C": 9},
    "two simdgroups": {"T": 90, "S": 40, "C": 30},
    "four simdgroups": {"T": 210, "S": 100, "C": 30},
    "rounds of simdgroups": {"T": 560, "S": 270, "C": 30},
}
BATCHES = [3, 9]  # lengths in constant memory, and in device memory


def align(emulator, problem, dtype=mx.float32, **options):
    return ctc_on_emulator.run(emulator, problem, dtype, "forced_align", **options)


def check(run, problem, dtype=mx.float32):
    arrays = [array + 0 for array in problem.arrays(dtype)]  # not known at the call
    path, scores = forced_align(*arrays, **problem.options, stream=mx.cpu)
    np.testing.assert_array_equal(run.arrays["alignments"].array(), path)
    np.testing.assert_allclose(run.arrays["scores"].array(), scores, 1e-6, 1e-6)


@pytest.mark.parametrize("with_logits", [False, True], ids=["log_probs", "logits"])
@pytest.mark.parametrize("N", BATCHES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_kernel(emulator, variant, N, with_logits):
    N = min(N, 3) if variant == "rounds of simdgroups" else N
    sizes = VARIANTS[variant]
    rng = np.random.default_rng(7)
    problem = random_problem(rng, N=N, with_logits=with_logits, **sizes)
    run = align(emulator, problem)
    check(run, problem)
    for text in run.texts():
        assert problems_of_text(text) == []


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_each_dtype(emulator, rng, dtype):
    problem = random_problem(rng)
    check(align(emulator, problem, dtype), problem, dtype)


def test_ties(emulator, rng):
    problem = random_problem(rng, T=90, S=40, with_logits=False)
    problem.inputs = -rng.integers(0, 2, problem.inputs.shape).astype(float)
    check(align(emulator, problem), problem)


def test_batch_first_scores_are_read_where_they_are(emulator, rng):
    problem = random_problem(rng)
    check(align(emulator, problem, batch_first=True), problem)


def test_empty_targets(emulator, rng):
    problem = random_problem(rng)
    problem.target_lengths[:] = 0
    check(align(emulator, problem), problem)


def test_targets_that_do_not_fit(emulator, rng):
    problem = random_problem(rng, T=20, S=12)
    problem.input_lengths[:] = 20, 13, 12, 11, 3, 0
    check(align(emulator, problem), problem)


@pytest.mark.parametrize("value", [-np.inf, -1e9, np.nan, np.inf])
def test_numbers_without_a_path(emulator, rng, value, with_logits):
    problem = random_problem(rng, with_logits=with_logits, ragged=False)
    problem.inputs[11, 1, :] = value
    problem.inputs[:, 3, problem.targets[3, 4]] = value
    problem.inputs[4, 5, problem.targets[5, 2]] = value
    check(align(emulator, problem), problem)


@pytest.mark.parametrize("scale", [1e5, 1e9, 1e30])
def test_scores_without_bounds_saturate_alike(emulator, rng, scale, with_logits):
    problem = random_problem(rng, with_logits=with_logits, ragged=False)
    problem.inputs *= scale
    check(align(emulator, problem), problem)


@pytest.mark.parametrize("value", [-1, 99, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("name", ["targets", "input_lengths", "target_lengths"])
def test_values_out_of_range(emulator, rng, name, value):
    problem = random_problem(rng, ragged=False)
    getattr(problem, name)[2] = value
    run = align(emulator, problem)
    is_nan = np.isnan(np.array(run.arrays["scores"].array())).all(axis=1)
    assert is_nan.tolist() == [False, False, True, False, False, False]
    check(run, problem)


@pytest.mark.parametrize("blank", [0, 4])
def test_blank_is_no_label(emulator, rng, blank):
    problem = random_problem(rng, blank=blank)
    problem.target_lengths[:] = 0, 3, 8, 3, 8, 3
    problem.targets[:, 5] = blank  # of those with 8 labels alone
    run = align(emulator, problem)
    is_nan = np.isnan(np.array(run.arrays["scores"].array())).all(axis=1)
    assert is_nan.tolist() == [False, False, True, False, True, False]
    check(run, problem)
