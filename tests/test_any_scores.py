# normalized=False: scores of any kind, whose gradient is minus the occupation.

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import reference
from problems import (
    Problem,
    assert_gradient_close,
    assert_loss_close,
    loss_and_gradient,
    random_problem,
    to_numpy,
)

import mlx_ctc
from mlx_ctc import ctc_loss

pytestmark = pytest.mark.usefixtures("device")


def log_softmax(x, np=np):
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def mask(C):
    """-inf for some classes that no target of these tests has."""
    return np.where(np.arange(C) % 3 == 1, -np.inf, 0)


def log_prior(C):
    return 0.5 * np.log(np.arange(1, C + 1) / 9)


# What people train on: logits in, scores out, of NumPy or of MLX.
SCORES = {
    "label priors": lambda x, np: log_softmax(x, np) - np.array(log_prior(x.shape[-1])),
    "temperature": lambda x, np: 1.7 * log_softmax(x, np),
    "mask": lambda x, np: log_softmax(x, np) + np.array(mask(x.shape[-1])),
    "log sigmoid": lambda x, np: -np.log(1 + np.exp(-x)),
    "as they are": lambda x, np: x,
}


@pytest.fixture(params=SCORES)
def scores_of(request):
    return SCORES[request.param]


@pytest.fixture
def of_logits(rng, classes):
    """A problem whose inputs are logits, without labels that the mask excludes."""
    problem = random_problem(rng, C=classes, with_logits=False)
    problem.inputs = rng.normal(size=problem.inputs.shape)
    problem.targets = 2 + problem.targets % 2
    problem.normalized = False
    return problem


def slopes(rng, problem, scores_of, step=1e-4):
    """Random directions from the logits, with how the scores (T, N, C) and the sum of
    the losses change along each, by central differences in float64."""
    _, *rest = problem.arrays()
    for _ in range(10):
        direction = rng.normal(size=problem.inputs.shape)
        direction /= np.linalg.norm(direction)
        above, below = (
            scores_of(problem.inputs + sign * step * direction, np) for sign in (1, -1)
        )
        with mx.stream(mx.cpu):
            losses = [
                ctc_loss(mx.array(x, mx.float64), *rest, reduction="sum").item()
                for x in (above, below)
            ]
        with np.errstate(invalid="ignore"):  # -inf less itself
            of_scores = np.nan_to_num(above - below) / (2 * step)
        yield direction, of_scores, (losses[0] - losses[1]) / (2 * step)


def test_gradient_is_the_finite_difference_in_float64(
    device, rng, of_logits, scores_of
):
    if device == mx.gpu:
        pytest.skip("MLX has float64 on the CPU only")
    directions = list(slopes(rng, of_logits, scores_of))
    of_logits.inputs = scores_of(of_logits.inputs, np)
    _, gradient = of_logits.run(mx.float64)
    for _, of_scores, slope in directions:
        product = (to_numpy(gradient) * of_scores).sum()
        assert product == pytest.approx(slope, abs=1e-7)


def test_gradient_propagates_to_the_logits(rng, of_logits, scores_of):
    logits, *rest = of_logits.arrays()

    def loss(x):
        scores = scores_of(x, mx)
        return ctc_loss(scores, *rest, reduction="sum", normalized=False)

    gradient = to_numpy(mx.grad(loss)(logits))
    assert np.isfinite(gradient).all()
    for direction, _, slope in slopes(rng, of_logits, scores_of):
        assert (gradient * direction).sum() == pytest.approx(slope, abs=2e-5)


def test_gradient_equals_the_reference(of_logits, scores_of, dtype):
    of_logits.inputs = scores_of(of_logits.inputs, np)
    loss, gradient = of_logits.run(dtype)
    assert gradient.dtype == dtype
    expected_loss, expected_gradient = of_logits.expected(dtype)
    assert np.isfinite(expected_loss).all()
    assert_loss_close(loss, expected_loss, dtype)
    assert_gradient_close(gradient, expected_gradient, dtype)


# Rows written in place, as blocks of frames, and past the caches; targets in parts.
@pytest.mark.parametrize(
    "shape", ["3x1x2x1", "90x2x300x31", "40x512x32x12", "9x7x50000x4", "90x2x40x80"]
)
def test_gradient_equals_the_reference_at_odd_shapes(rng, shape, dtype):
    T, N, C, S = map(int, shape.split("x"))
    problem = random_problem(rng, T, N, C, S, with_logits=False)
    problem.inputs = rng.normal(size=(T, N, C))
    problem.normalized = False
    problem.check(dtype)


def test_scores_far_apart_equal_the_reference(rng, dtype, classes):
    # Doubles and floats do not hold the recursion.
    problem = random_problem(rng, C=classes, with_logits=False)
    problem.inputs = 60 * rng.normal(size=problem.inputs.shape)
    problem.normalized = False
    problem.check(dtype)


def test_loss_does_not_depend_on_the_option(rng, dtype):
    problem = random_problem(rng, with_logits=False)
    loss, _ = problem.run(dtype)
    problem.normalized = False
    assert mx.array_equal(problem.run(dtype)[0], loss)


def test_gradient_is_exactly_zero_for_classes_that_the_target_does_not_have(
    rng, dtype, classes
):
    problem = random_problem(rng, C=classes, with_logits=False)
    problem.normalized = False
    _, gradient = problem.run(dtype)
    gradient = to_numpy(gradient)
    for n, (T, S) in enumerate(
        zip(problem.input_lengths, problem.target_lengths, strict=True)
    ):
        used = [problem.blank, *problem.targets[n, :S]]
        unused = np.setdiff1d(np.arange(classes), used)
        assert not gradient[:, n, unused].any()
        assert not gradient[T:, n].any()
        np.testing.assert_allclose(gradient[:T, n].sum(axis=-1), -1, atol=1e-2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_of_classes_that_the_target_does_not_have_are_not_read(
    rng, bad, classes
):
    problem = random_problem(rng, C=classes, with_logits=False)
    problem.targets = problem.targets % 4
    problem.normalized = False
    loss, gradient = problem.run()
    problem.inputs[:, :, 5:] = bad
    beside_loss, beside_gradient = problem.run()
    assert mx.array_equal(loss, beside_loss)
    assert mx.array_equal(gradient, beside_gradient)


def test_bad_score_of_a_label_makes_its_item_nan(rng, classes):
    problem = random_problem(rng, C=classes, with_logits=False, ragged=False)
    problem.normalized = False
    expected_loss, expected_gradient = problem.expected()
    problem.inputs[4, 2, problem.targets[2, 3]] = np.nan
    expected_loss[2], expected_gradient[:, 2] = np.nan, np.nan
    loss, gradient = problem.run()
    assert_loss_close(loss, expected_loss)
    assert_gradient_close(gradient, expected_gradient)


def test_target_that_does_not_fit_has_no_gradient(rng):
    problem = random_problem(rng, with_logits=False)
    problem.normalized = False
    problem.target_lengths[:] = 8
    problem.input_lengths[2] = 7
    loss, gradient = problem.run()
    assert loss[2].item() == np.inf
    assert not to_numpy(gradient)[:, 2].any()
    problem.check()


def test_gradient_scales_with_each_items_cotangent(rng, classes):
    problem = random_problem(rng, C=classes, with_logits=False)
    problem.normalized = False
    weights = np.array([1.5, 0, -2, 0.25, 1, 3], np.float32)
    _, gradient = problem.run(cotangent=mx.array(weights))
    assert_gradient_close(gradient, weights[:, None] * problem.expected()[1])
    assert not to_numpy(gradient)[:, 1].any()


def test_both_options_agree_behind_a_log_softmax(rng):
    logits, *rest = random_problem(rng).arrays()

    def gradient(normalized):
        def loss(x):
            scores = nn.log_softmax(x, axis=-1)
            return ctc_loss(scores, *rest, reduction="sum", normalized=normalized)

        return mx.grad(loss)(logits)

    np.testing.assert_allclose(gradient(False), gradient(True), atol=1e-5)


class TestTransforms:
    @pytest.fixture
    def problem(self, rng):
        problem = random_problem(rng, with_logits=False)
        problem.inputs = rng.normal(size=problem.inputs.shape)
        problem.normalized = False
        return problem

    @pytest.fixture
    def loss(self):
        def loss(*arrays):
            return ctc_loss(*arrays, reduction="sum", normalized=False)

        return loss

    def test_vmap_of_the_gradient(self, rng, problem, loss):
        inputs, *rest = problem.arrays()
        stack = mx.stack([inputs, 2 * inputs])
        gradients = mx.vmap(mx.grad(loss), in_axes=(0, None, None, None))(stack, *rest)
        for x, gradient in zip(stack, gradients, strict=True):
            expected = mx.grad(loss)(x, *rest)
            np.testing.assert_allclose(gradient, expected, atol=2e-6)

    def test_gradient_of_a_vmap(self, problem, loss):
        inputs, *rest = problem.arrays()
        stack = mx.stack([inputs, 2 * inputs])

        def total(stack):
            return mx.vmap(loss, in_axes=(0, None, None, None))(stack, *rest).sum()

        gradients = mx.grad(total)(stack)
        for x, gradient in zip(stack, gradients, strict=True):
            expected = mx.grad(loss)(x, *rest)
            np.testing.assert_allclose(gradient, expected, atol=2e-6)

    def test_jvp(self, rng, problem, loss):
        inputs, *rest = problem.arrays()
        tangent = rng.normal(size=inputs.shape)
        _, (change,) = mx.jvp(
            lambda x: loss(x, *rest), [inputs], [mx.array(tangent, mx.float32)]
        )
        expected = (problem.expected()[1] * tangent).sum()
        assert change.item() == pytest.approx(expected, rel=1e-4)

    def test_compiled_function_keeps_the_two_options_apart(self, problem):
        inputs, *rest = problem.arrays()

        def gradients(x):
            return [
                mx.grad(
                    lambda x, normalized=normalized: ctc_loss(
                        x, *rest, reduction="sum", normalized=normalized
                    )
                )(x)
                for normalized in (True, False)
            ]

        softmax_minus_gamma, minus_gamma = mx.compile(gradients)(inputs)
        assert_gradient_close(minus_gamma, problem.expected()[1])
        # The scores are up to 3: their exponentials have more than an absolute 1e-6.
        problem.normalized = True
        np.testing.assert_allclose(
            to_numpy(softmax_minus_gamma), problem.expected()[1], 2**-22, 1e-6
        )


@pytest.mark.parametrize("call", ["function", "module"])
def test_logits_are_refused_with_the_reason(call):
    options = {"with_logits": True, "normalized": False}
    loss = {
        "function": lambda *xs: ctc_loss(*xs, **options),
        "module": lambda *xs: mlx_ctc.nn.CTCLoss(**options)(*xs),
    }[call]
    says = r"\[ctc_loss\] Expected normalized=True .*but got .*log-softmax.* normalized"
    with pytest.raises(ValueError, match=says):
        loss(mx.zeros((4, 1, 3)), [[1]], [4], [1])


def test_module_passes_the_option_on(rng):
    problem = random_problem(rng, with_logits=False)
    inputs, *rest = problem.arrays()
    layer = mlx_ctc.nn.CTCLoss(reduction="sum", normalized=False)
    assert "normalized=False" in repr(layer)
    problem.normalized = False
    assert_gradient_close(
        mx.grad(lambda x: layer(x, *rest))(inputs), problem.expected()[1]
    )


def test_training_on_scores_with_label_priors_lowers_the_loss(rng):
    """A step against the gradient, for which normalized=True has another direction."""
    problem = random_problem(rng, T=20, N=4, C=6, S=3)
    logits, *rest = problem.arrays()
    log_prior = mx.log(mx.array([0.8, 0.1, 0.04, 0.03, 0.02, 0.01]))

    def loss(x, normalized):
        scores = nn.log_softmax(x, axis=-1) - log_prior
        return ctc_loss(scores, *rest, reduction="sum", normalized=normalized)

    right = mx.grad(loss)(logits, False)
    wrong = mx.grad(loss)(logits, True)
    assert mx.abs(right - wrong).max().item() > 0.1
    assert loss(logits - 0.1 * right, False).item() < loss(logits, False).item()


def test_reference_is_the_derivative_of_its_own_loss(rng):
    scores = rng.normal(size=(6, 1, 3))
    case = np.array([[1, 2]]), [6], [2]
    _, gradient = reference.ctc_loss(scores, *case, normalized=False)
    for place in np.ndindex(scores.shape):
        move = np.zeros(scores.shape)
        move[place] = 1e-5
        above, below = (
            reference.ctc_loss(scores + sign * move, *case)[0][0] for sign in (1, -1)
        )
        assert (above - below) / 2e-5 == pytest.approx(gradient[place], abs=1e-8)


def test_problem_of_one_frame():
    problem = Problem(
        np.array([[[0.5, -1.0, 2.0]]]),
        np.array([[2]]),
        [1],
        [1],
        with_logits=False,
        normalized=False,
    )
    loss, gradient = problem.run()
    assert loss.item() == pytest.approx(-2)
    assert gradient.tolist() == [[[0, 0, -1]]]


def test_gradient_of_unused_option_is_that_of_the_default(rng):
    problem = random_problem(rng, with_logits=False)
    _, expected = loss_and_gradient(*problem.arrays(), **problem.options)
    assert mx.array_equal(problem.run()[1], expected)
