# MLX's function transforms, and those of mlx.nn, see an ordinary operation.

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from problems import assert_gradient_close, assert_loss_close, random_problem

from mlx_ctc import ctc_loss

pytestmark = pytest.mark.usefixtures("device")


@pytest.fixture
def problem(rng, with_logits):
    return random_problem(rng, with_logits=with_logits)


@pytest.fixture
def arrays(problem):
    return problem.arrays()


@pytest.fixture
def loss(problem):
    """The sum of losses, a function of the four arrays."""

    def loss(*arrays):
        return ctc_loss(*arrays, reduction="sum", **problem.options)

    return loss


@pytest.fixture
def expected(problem):
    """The sum of losses and its gradient."""
    losses, gradient = problem.expected()
    assert np.isfinite(losses).all()
    return losses.sum(), gradient


def test_grad(loss, arrays, expected):
    assert_gradient_close(mx.grad(loss)(*arrays), expected[1])


def test_value_and_grad(loss, arrays, expected):
    value, gradient = mx.value_and_grad(loss)(*arrays)
    assert_loss_close(value, expected[0])
    assert_gradient_close(gradient, expected[1])


def test_nothing_is_evaluated_before_it_is_asked_for(loss, arrays):
    lengths = arrays[2] + 1000  # refused on the CPU, once it is read
    mx.grad(loss)(arrays[0], arrays[1], lengths, arrays[3])


def test_compile(loss, arrays, expected):
    compiled = mx.compile(mx.value_and_grad(loss))
    for _ in range(2):
        value, gradient = compiled(*arrays)
        assert_loss_close(value, expected[0])
        assert_gradient_close(gradient, expected[1])


def test_compiled_loss_follows_new_arrays(rng, loss, arrays, problem):
    compiled = mx.compile(loss)
    compiled(*arrays)
    other = random_problem(rng, with_logits=problem.with_logits)
    assert_loss_close(compiled(*other.arrays()), other.expected()[0].sum())


def test_compile_of_the_elementwise_around_it(problem, arrays, expected):
    @mx.compile
    def step(x, *rest):
        def loss(x):
            return 3 * mx.abs(ctc_loss(2 * x - x, *rest, **options)).sum()

        return mx.value_and_grad(loss)(x)

    options = {"reduction": "none", **problem.options}
    value, gradient = step(*arrays)
    assert_loss_close(value / 3, expected[0])
    assert_gradient_close(gradient / 3, expected[1])


def test_checkpoint(loss, arrays, expected):
    value, gradient = mx.value_and_grad(mx.checkpoint(loss))(*arrays)
    assert_loss_close(value, expected[0])
    assert_gradient_close(gradient, expected[1])


def test_gradient_can_be_taken_twice_from_one_forward(loss, arrays, expected):
    for _ in range(2):
        _, (gradient,) = mx.vjp(
            lambda x: loss(x, *arrays[1:]), arrays[:1], [mx.array(1.0)]
        )
        assert_gradient_close(gradient, expected[1])


def test_async_eval(loss, arrays, expected):
    value, gradient = mx.value_and_grad(loss)(*arrays)
    mx.async_eval(value, gradient)
    assert_loss_close(value, expected[0])
    assert_gradient_close(gradient, expected[1])


def test_training_step_of_a_model(rng):
    problem = random_problem(rng, T=20, N=4, C=6, S=3)
    logits, *rest = problem.arrays()
    model = nn.Linear(6, 6)

    def loss(model, x):
        return ctc_loss(model(x), *rest, with_logits=True)

    step = nn.value_and_grad(model, loss)
    before, gradients = step(model, logits)
    model.update({k: v - 0.1 * gradients[k] for k, v in model.parameters().items()})
    after, _ = step(model, logits)
    assert after.item() < before.item()


def test_jvp_is_the_gradient_times_the_tangent(rng, loss, arrays, expected):
    tangent = rng.normal(size=arrays[0].shape)
    (value,), (change,) = mx.jvp(
        lambda x: loss(x, *arrays[1:]), arrays[:1], [mx.array(tangent, mx.float32)]
    )
    assert_loss_close(value, expected[0])
    assert change.item() == pytest.approx((expected[1] * tangent).sum(), rel=1e-4)


def test_jvp_with_tangents_of_all_inputs(rng, loss, arrays, expected):
    tangent = rng.normal(size=arrays[0].shape)
    tangents = [mx.array(tangent, mx.float32), *map(mx.zeros_like, arrays[1:])]
    (value,), (change,) = mx.jvp(loss, arrays, tangents)
    assert_loss_close(value, expected[0])
    assert change.item() == pytest.approx((expected[1] * tangent).sum(), rel=1e-4)


def second_derivative_refused(call):
    with pytest.raises((ValueError, RuntimeError), match=r"\[ctc_loss\].*econd"):
        mx.eval(call())


def test_gradient_of_the_gradient_is_refused(loss, arrays):
    def squared(x):
        return mx.square(mx.grad(loss)(x, *arrays[1:])).sum()

    second_derivative_refused(lambda: mx.grad(squared)(arrays[0]))


def test_jvp_of_the_gradient_is_refused(loss, arrays):
    def gradient(x):
        return mx.grad(loss)(x, *arrays[1:])

    second_derivative_refused(
        lambda: mx.jvp(gradient, arrays[:1], [mx.ones_like(arrays[0])])
    )


def test_cotangent_of_the_gradient_is_refused(problem, arrays):
    # Linear in the cotangent, but still the gradient's own derivative.
    def gradient(weights):
        def loss(x):
            losses = ctc_loss(x, *arrays[1:], reduction="none", **problem.options)
            return (losses * weights).sum()

        return mx.grad(loss)(arrays[0]).sum()

    second_derivative_refused(lambda: mx.grad(gradient)(mx.ones(6)))


class TestVmap:
    @pytest.fixture
    def stack(self, rng, with_logits):
        """Four batches, stacked on a new first axis."""
        problems = [random_problem(rng, with_logits=with_logits) for _ in range(4)]
        arrays = zip(*(p.arrays() for p in problems), strict=True)
        return problems, [mx.stack(a) for a in arrays]

    def test_of_a_batch(self, stack, loss):
        problems, arrays = stack
        losses = mx.vmap(loss)(*arrays)
        assert_loss_close(losses, [p.expected()[0].sum() for p in problems])

    def test_of_one_sequence_is_the_batch(self, problem, arrays):
        def loss(*arrays):
            return ctc_loss(*arrays, reduction="none", **problem.options)

        losses = mx.vmap(loss, in_axes=(1, 0, 0, 0))(*arrays)
        assert_loss_close(losses, problem.expected()[0])

    def test_of_the_gradient(self, stack, loss):
        problems, arrays = stack
        gradients = mx.vmap(mx.grad(loss))(*arrays)
        assert_gradient_close(gradients, [p.expected()[1] for p in problems])

    def test_inside_the_gradient(self, stack, loss):
        problems, arrays = stack
        gradient = mx.grad(lambda *arrays: mx.vmap(loss)(*arrays).sum())(*arrays)
        assert_gradient_close(gradient, [p.expected()[1] for p in problems])

    @pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
    def test_along_any_axis(self, stack, loss, axis):
        problems, (inputs, *rest) = stack
        moved = mx.moveaxis(inputs, 0, axis)
        losses = mx.vmap(loss, in_axes=(axis, 0, 0, 0))(moved, *rest)
        assert_loss_close(losses, [p.expected()[0].sum() for p in problems])

    def test_over_inputs_alone(self, stack, loss):
        _, (inputs, *rest) = stack
        rest = [array[0] for array in rest]
        losses = mx.vmap(loss, in_axes=(0, None, None, None))(inputs, *rest)
        expected = [loss(x, *rest).item() for x in inputs]
        assert_loss_close(losses, expected)

    def test_over_targets_alone(self, stack, loss):
        _, (inputs, targets, *lengths) = stack
        lengths = [array[0] for array in lengths]
        losses = mx.vmap(loss, in_axes=(None, 0, None, None))(
            inputs[0], targets, *lengths
        )
        expected = [loss(inputs[0], y, *lengths).item() for y in targets]
        assert_loss_close(losses, expected)

    def test_of_the_gradient_over_targets_alone(self, stack, loss):
        _, (inputs, targets, *lengths) = stack
        lengths = [array[0] for array in lengths]
        gradients = mx.vmap(mx.grad(loss), in_axes=(None, 0, None, None))(
            inputs[0], targets, *lengths
        )
        for y, gradient in zip(targets, gradients, strict=True):
            expected = mx.grad(loss)(inputs[0], y, *lengths)
            np.testing.assert_allclose(gradient, expected, atol=2e-6)

    def test_of_a_vmap(self, stack, loss):
        problems, arrays = stack
        twice = [array.reshape(2, 2, *array.shape[1:]) for array in arrays]
        losses = mx.vmap(mx.vmap(loss))(*twice)
        expected = [p.expected()[0].sum() for p in problems]
        assert_loss_close(losses.reshape(-1), expected)


def test_exported_models_leave_the_loss_outside(rng, tmp_path):
    weights = mx.array(rng.normal(size=(7, 4)), mx.float32)
    features = mx.array(rng.normal(size=(9, 2, 7)), mx.float32)
    rest = [[1, 2], [3, 1]], [9, 8], [2, 1]

    def model(x):
        return x @ weights

    path = str(tmp_path / "model.mlxfn")
    with pytest.raises(ValueError, match="Unable to serialize primitive CTCForward"):
        mx.export_function(
            path, lambda x: ctc_loss(model(x), *rest, with_logits=True), features
        )
    mx.export_function(path, model, features)
    (logits,) = mx.import_function(path)(features)
    expected = ctc_loss(model(features), *rest, with_logits=True)
    assert ctc_loss(logits, *rest, with_logits=True).item() == expected.item()
