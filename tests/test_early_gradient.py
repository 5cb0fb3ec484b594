# On the CPU the loss computes its gradient for cotangents of 1 at once, if the graph
# has a gradient of it by then. It is the same as one that is computed later.

import mlx.core as mx
import numpy as np
import pytest
from problems import random_problem

from mlx_ctc import ctc_loss


@pytest.fixture(autouse=True)
def on_cpu():
    with mx.stream(mx.cpu):
        yield


def run(problem, cotangent, *, early, **options):
    """The losses and the gradient. A loss that is evaluated first has no early one."""
    x, *rest = problem.arrays()
    rest = [array + 0 for array in rest]  # not known at the call

    def losses(x):
        loss = ctc_loss(x, *rest, reduction="none", **problem.options, **options)
        if not early:
            mx.eval(loss)
        return loss

    (loss,), (gradient,) = mx.vjp(losses, [x], [mx.array(cotangent, mx.float32)])
    mx.eval(loss, gradient)
    return np.array(loss), np.array(gradient)


def assert_early_is_late(problem, cotangent, **options):
    early = run(problem, cotangent, early=True, **options)
    late = run(problem, cotangent, early=False, **options)
    for a, b in zip(early, late, strict=True):
        np.testing.assert_array_equal(a.view(np.int32), b.view(np.int32))


@pytest.mark.parametrize(("T", "S"), [(30, 8), (300, 20), (700, 90)])
@pytest.mark.parametrize("spread", [2, 60], ids=["doubles", "extended"])
@pytest.mark.parametrize("normalized", [True, False])
def test_same_bits(rng, T, S, classes, with_logits, spread, normalized):
    problem = random_problem(
        rng, T, 7, classes, S, with_logits=with_logits, spread=spread
    )
    if normalized or not with_logits:
        for cotangent in np.ones(7), rng.normal(size=7):
            assert_early_is_late(problem, cotangent, normalized=normalized)


def test_certain_alignments(rng):
    problem = random_problem(rng, T=40, S=5, with_logits=False, spread=1)
    problem.inputs = np.where(
        problem.inputs == problem.inputs.max(-1)[..., None], 0, -30
    )
    assert_early_is_late(problem, np.linspace(0.1, 2, 6))


@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("factor", [1, 0, -3, 1 / 3, np.nan, np.inf])
def test_rows_that_are_not_computed(rng, factor, zero_infinity):
    problem = random_problem(rng, T=20, N=8, S=6)
    problem.inputs[3, 1, 2] = np.nan
    problem.input_lengths[2] = 21
    problem.targets[3, 0], problem.target_lengths[3] = 9, 3
    problem.target_lengths[4], problem.input_lengths[4] = 6, 2
    problem.target_lengths[5], problem.input_lengths[5] = 0, 0
    cotangent = np.ones(8)
    cotangent[:7] = factor
    assert_early_is_late(problem, cotangent, zero_infinity=zero_infinity)


def test_a_compiled_loss_in_gradients_and_alone():
    compiled = mx.compile(of_zeros)
    x = mx.zeros((100, 64, 40))
    gradients = [mx.grad(compiled)(x) for _ in range(3)]
    expected = mx.grad(of_zeros)(x)
    mx.eval(gradients, expected)
    assert all(mx.array_equal(gradient, expected) for gradient in gradients)
    (peak,), size = peak_memory(lambda x: [compiled(x)])
    assert peak < size / 2


def test_the_same_loss_twice_in_a_compiled_function(rng):
    x, *rest = random_problem(rng).arrays()

    def gradient(x, factor):
        return mx.grad(lambda x: factor * ctc_loss(x, *rest, with_logits=True))(x)

    def gradients(x):
        return [gradient(x, factor) for factor in (1, 1, 2)]

    first, second, double = mx.compile(gradients)(x)
    assert mx.array_equal(first, second)
    assert mx.array_equal(2 * first, double)


def test_a_gradient_that_a_compiled_function_has_captured():
    # It evaluates the node of the gradient in each call.
    x = mx.zeros((100, 64, 40))
    expected = mx.grad(of_zeros)(x)
    loss, gradient = mx.value_and_grad(of_zeros)(x)
    mx.eval(loss, expected)
    compiled = mx.compile(lambda y: y + gradient)
    results = [compiled(mx.zeros_like(x)) for _ in range(3)]
    mx.eval(results)
    assert all(mx.array_equal(result, expected) for result in results)
    mx.eval(gradient)
    kept = np.array(gradient)
    assert mx.array_equal(compiled(mx.zeros_like(x)), expected)
    np.testing.assert_array_equal(gradient, kept)
    np.testing.assert_array_equal(expected, kept)


def peak_memory(f):
    """Of MLX's, beyond what there was, in the evaluation of each result of f(x)."""
    x = mx.zeros((100, 64, 40))
    mx.eval(x)
    before = mx.get_active_memory()
    results, peaks = f(x), []
    for result in results:
        mx.reset_peak_memory()
        mx.eval(result)
        mx.synchronize()
        peaks.append(mx.get_peak_memory() - before)
    return peaks, x.nbytes


def of_zeros(x):
    lengths = mx.full(64, 90)
    return ctc_loss(x, mx.ones((64, 10), mx.int32), lengths, with_logits=True)


def test_a_loss_alone_computes_no_gradient():
    (peak,), size = peak_memory(lambda x: [of_zeros(x)])
    assert peak < size / 2


def test_the_gradient_takes_over_the_memory():
    (of_loss, of_gradient), size = peak_memory(mx.value_and_grad(of_zeros))
    assert size <= of_loss < 1.5 * size
    assert size <= of_gradient < 1.5 * size
