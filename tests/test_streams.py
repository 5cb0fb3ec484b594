# Streams and threads: the loss runs where it is told, from wherever it is called.

import math
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np
import pytest
from problems import random_problem

from mlx_ctc import ctc_loss

pytestmark = pytest.mark.usefixtures("device")


@pytest.fixture
def problem(rng):
    return random_problem(rng)


def value_and_grad(problem, stream=None):
    inputs, *rest = problem.arrays()

    def loss(x):
        return ctc_loss(x, *rest, with_logits=True, stream=stream)

    value, gradient = mx.value_and_grad(loss)(inputs)
    mx.eval(value, gradient)
    return value.item(), np.array(gradient)


def assert_same(result, expected):
    assert result[0] == expected[0]
    np.testing.assert_array_equal(result[1], expected[1])


def test_stream_may_be_named(device, problem):
    expected = value_and_grad(problem)
    assert_same(value_and_grad(problem, device), expected)
    assert_same(value_and_grad(problem, mx.new_stream(device)), expected)
    with mx.stream(mx.new_stream(device)):
        assert_same(value_and_grad(problem), expected)


def test_cpu_stream_runs_on_the_cpu_whatever_the_default(problem):
    value, gradient = value_and_grad(problem, mx.cpu)
    mx.set_default_device(mx.cpu)
    assert_same((value, gradient), value_and_grad(problem))


def test_results_pass_between_streams(device, problem):
    expected = value_and_grad(problem)
    first, second = mx.new_stream(device), mx.new_stream(device)
    inputs, *rest = problem.arrays()

    def loss(x):
        return ctc_loss(
            mx.add(x, 0, stream=first), *rest, with_logits=True, stream=second
        )

    value, gradient = mx.value_and_grad(loss)(inputs)
    assert_same((value.item(), np.array(gradient)), expected)


def test_threads_may_call_at_once(device, rng):
    problems = [random_problem(rng, T=100 + 10 * i, N=9) for i in range(8)]
    expected = [value_and_grad(problem) for problem in problems]

    def work(problem):
        mx.set_default_device(device)
        return [value_and_grad(problem) for _ in range(10)]

    with ThreadPoolExecutor(len(problems)) as pool:
        for results, alone in zip(pool.map(work, problems), expected, strict=True):
            for result in results:
                assert_same(result, alone)


def test_bad_values_in_one_stream_leave_the_others_working(device, problem):
    expected = value_and_grad(problem)
    broken = mx.new_stream(device)
    inputs, targets, lengths, target_lengths = problem.arrays()
    loss = ctc_loss(inputs, targets, lengths + 99, target_lengths, stream=broken)
    assert math.isnan(loss.item())
    assert_same(value_and_grad(problem), expected)
    assert_same(value_and_grad(problem, broken), expected)
