# Any strides: what the inputs are matters, not how they lie in memory.

import mlx.core as mx
import numpy as np
import pytest
from problems import loss_and_gradient, random_problem

pytestmark = pytest.mark.usefixtures("device")

T, N, C = 30, 6, 9


def spread_out(inputs, fill):
    """The same values, every second one of a buffer twice as long on each axis."""
    shape = tuple(2 * size for size in inputs.shape)
    buffer = mx.full(shape, fill, inputs.dtype)
    buffer[1::2, 1::2, 1::2] = inputs
    mx.eval(buffer)
    return buffer[1::2, 1::2, 1::2]


def batch_first(inputs):
    contiguous = mx.contiguous(inputs.transpose(1, 0, 2))
    mx.eval(contiguous)
    return contiguous.transpose(1, 0, 2)


def classes_first(inputs):
    contiguous = mx.contiguous(inputs.transpose(2, 1, 0))
    mx.eval(contiguous)
    return contiguous.transpose(2, 1, 0)


def sliced(inputs):
    wide = mx.pad(inputs, [(3, 5), (2, 1), (1, 4)], constant_values=mx.nan)
    mx.eval(wide)
    return wide[3 : 3 + T, 2 : 2 + N, 1:-4]


def backwards(inputs):
    reverse = mx.contiguous(inputs[::-1, ::-1, ::-1])
    mx.eval(reverse)
    return reverse[::-1, ::-1, ::-1]


LAYOUTS = {
    "batch first": batch_first,
    "classes first": classes_first,
    "sliced": sliced,
    "negative steps": backwards,
    "every second": lambda inputs: spread_out(inputs, mx.nan),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_inputs_may_lie_in_any_order(rng, layout, with_logits, dtype, classes):
    problem = random_problem(rng, T, N, classes, with_logits=with_logits)
    inputs, *rest = problem.arrays(dtype)
    expected_loss, expected_gradient = problem.run(dtype)
    loss, gradient = loss_and_gradient(
        LAYOUTS[layout](inputs), *rest, **problem.options
    )
    assert mx.array_equal(loss, expected_loss)
    assert mx.array_equal(gradient, expected_gradient)


@pytest.mark.parametrize("shape", [(1, N, C), (T, 1, C), (T, N, 1), (1, 1, 1)])
def test_inputs_may_be_broadcast(rng, shape):
    problem = random_problem(rng, T, N, C)
    source = mx.array(rng.normal(size=shape), mx.float32)
    broadcast = mx.broadcast_to(source, (T, N, C))
    _, *rest = problem.arrays()
    expected_loss, expected_gradient = loss_and_gradient(
        mx.array(np.array(broadcast)), *rest, with_logits=True
    )
    loss, gradient = loss_and_gradient(broadcast, *rest, with_logits=True)
    assert mx.array_equal(loss, expected_loss)
    assert mx.array_equal(gradient, expected_gradient)


def test_targets_lengths_and_cotangent_may_have_strides(rng):
    problem = random_problem(rng)
    inputs, targets, input_lengths, target_lengths = problem.arrays()
    weights = mx.array(rng.normal(size=N), mx.float32)
    expected_loss, expected_gradient = problem.run(cotangent=weights)
    transposed = mx.contiguous(targets.T)
    lengths = mx.contiguous(mx.stack([input_lengths, target_lengths], axis=1))
    reverse = mx.contiguous(weights[::-1])
    mx.eval(transposed, lengths, reverse)
    loss, gradient = loss_and_gradient(
        inputs,
        transposed.T,
        lengths[:, 0],
        lengths[:, 1],
        with_logits=True,
        cotangent=reverse[::-1],
    )
    assert mx.array_equal(loss, expected_loss)
    assert mx.array_equal(gradient, expected_gradient)


def test_lengths_may_be_broadcast(rng):
    problem = random_problem(rng, ragged=False)
    inputs, targets, *_ = problem.arrays()
    loss, gradient = loss_and_gradient(
        inputs,
        mx.broadcast_to(targets[:1], targets.shape),
        mx.broadcast_to(mx.array(30), (N,)),
        mx.broadcast_to(mx.array(8), (N,)),
        with_logits=True,
    )
    problem.targets[:] = problem.targets[0]
    expected_loss, expected_gradient = problem.run()
    assert mx.array_equal(loss, expected_loss)
    assert mx.array_equal(gradient, expected_gradient)
