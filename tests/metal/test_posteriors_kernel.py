# The posteriors' kernel on the emulator, beside those that the CPU computes.

from dataclasses import replace

import ctc_on_emulator
import mlx.core as mx
import numpy as np
import pytest
from problems import random_problem
from static_check import problems as problems_of_text

from mlx_ctc import ctc_posteriors

# Sizes that lead to each way of launching it.
VARIANTS = {
    "one simdgroup": {"T": 30, "S": 8, "C": 9},
    "two simdgroups": {"T": 60, "S": 40, "C": 30},
    "windows in turn": {"T": 300, "S": 140, "C": 30},
}
BATCHES = [3, 9]  # lengths in constant memory, and in device memory


@pytest.fixture(params=[False, True], ids=["by_label", "by_class"])
def by_class(request):
    return request.param


def check(emulator, problem, by_class, dtype=mx.float32, **options):
    op = "posteriors by class" if by_class else "posteriors"
    run = ctc_on_emulator.run(emulator, problem, dtype, op, **options)
    expected = ctc_posteriors(
        *problem.arrays(dtype), **problem.options, by_class=by_class, stream=mx.cpu
    )
    result = run.arrays["by_class" if by_class else "by_label"].array()
    np.testing.assert_allclose(result, expected, 0, 2e-6)
    return run


@pytest.mark.parametrize("with_logits", [False, True], ids=["log_probs", "logits"])
@pytest.mark.parametrize("N", BATCHES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_kernel(emulator, variant, N, with_logits, by_class):
    sizes = VARIANTS[variant]
    rng = np.random.default_rng(7)
    N = N if sizes["S"] < 100 else 3
    problem = random_problem(rng, N=N, with_logits=with_logits, **sizes)
    problem.target_lengths = np.minimum(problem.target_lengths, sizes["T"] // 2)
    run = check(emulator, problem, by_class)
    for text in run.texts():
        assert problems_of_text(text) == []


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_each_dtype(emulator, rng, dtype, by_class):
    check(emulator, random_problem(rng), by_class, dtype)


def test_batch_first_scores_are_read_where_they_are(emulator, rng, by_class):
    check(emulator, random_problem(rng), by_class, batch_first=True)


def test_classes_of_a_target_in_parts(emulator, rng):
    problem = random_problem(rng, T=200, S=90, N=3, C=7)

    def in_parts_of_32(launch):
        template = [(k, 32 if k == "PART" else value) for k, value in launch.template]
        shapes = [
            (3, 90 // 32 + 1, 8) if name == "classes" else shape
            for name, shape in zip(
                launch.output_names, launch.output_shapes, strict=True
            )
        ]
        return replace(launch, template=template, output_shapes=shapes)

    check(emulator, problem, by_class=True, edit=in_parts_of_32)


def test_odd_items(emulator, rng, with_logits, by_class):
    problem = random_problem(rng, with_logits=with_logits, ragged=False)
    problem.input_lengths[:] = 30, 20, 7, 0, 30, 30
    problem.target_lengths[:] = 0, 8, 8, 0, 8, 8
    problem.inputs[4, 4, problem.targets[4, 2]] = np.nan
    problem.inputs[25, 1] = np.nan
    problem.inputs[9, 5] = -np.inf
    check(emulator, problem, by_class)


@pytest.mark.parametrize("name", ["targets", "input_lengths", "target_lengths"])
def test_values_out_of_range(emulator, rng, name, by_class):
    problem = random_problem(rng, ragged=False)
    getattr(problem, name)[2] = 99
    op = "posteriors by class" if by_class else "posteriors"
    run = ctc_on_emulator.run(emulator, problem, mx.float32, op)
    result = np.array(run.arrays["by_class" if by_class else "by_label"].array())
    np.testing.assert_array_equal(np.isnan(result).all(axis=(1, 2)), np.arange(6) == 2)
    np.testing.assert_array_equal(np.isnan(result).any(axis=(1, 2)), np.arange(6) == 2)


def test_no_table_is_allocated_that_is_not_written():
    inputs = [
        mx.zeros((50, 6, 9)),
        mx.zeros((6, 8), mx.int32),
        *[mx.zeros(6, mx.int32)] * 2,
    ]
    options = {"blank": 0, "with_logits": True}
    *_, launch = ctc_on_emulator.launches_of(inputs, "posteriors", **options)
    shapes = dict(zip(launch.output_names, launch.output_shapes, strict=True))
    assert shapes == {"by_label": (6, 50, 9), "by_class": (1, 1, 1)}
