# The gradient: closed forms, finite differences, the reference, and exact zeros.

import mlx.core as mx
import numpy as np
import pytest
import reference
from problems import (
    Problem,
    assert_gradient_close,
    loss_and_gradient,
    random_problem,
    to_numpy,
)

from mlx_ctc import ctc_loss
from mlx_ctc.functional import REDUCTIONS

pytestmark = pytest.mark.usefixtures("device")


def test_one_path_pulls_each_frame_to_its_label(rng, with_logits):
    target = [3, 1, 5, 2]
    log_probs = reference.log_softmax(rng.normal(size=(4, 1, 6)))
    expected = np.exp(log_probs)
    expected[range(4), 0, target] -= 1
    problem = Problem(log_probs, np.array([target]), [4], [4], with_logits=with_logits)
    assert_gradient_close(problem.run()[1], expected)


def test_empty_target_pulls_each_frame_to_the_blank(rng, with_logits):
    log_probs = reference.log_softmax(rng.normal(size=(4, 1, 6)))
    expected = np.exp(log_probs)
    expected[:, 0, 2] -= 1
    targets = np.zeros((1, 0), np.int32)
    problem = Problem(log_probs, targets, [4], [0], blank=2, with_logits=with_logits)
    assert_gradient_close(problem.run()[1], expected)


@pytest.mark.parametrize(("T", "S"), [(3, 2), (10, 4), (100, 30)])
def test_equal_probabilities_count_the_paths_through_each_label(T, S):
    C = S + 1  # every label its own class
    problem = Problem(np.zeros((T, 1, C)), np.arange(1, C)[None], [T], [S])
    gamma = reference.share_of_paths(T, S, np.arange(T))
    _, gradient = problem.run()
    assert_gradient_close(gradient[:, 0, 1:], 1 / C - gamma)


def test_published_example_of_gradient():
    # TensorFlow, ctc_loss_op_test.py: testBasic, second item.
    probabilities = np.array(
        [
            [0.30176, 0.28562, 0.0831517, 0.0862751, 0.0816851, 0.161508],
            [0.24082, 0.397533, 0.0557226, 0.0546814, 0.0557528, 0.19549],
            [0.230246, 0.450868, 0.0389607, 0.038309, 0.0391602, 0.202456],
            [0.280884, 0.429522, 0.0326593, 0.0339046, 0.0326856, 0.190345],
            [0.423286, 0.315517, 0.0338439, 0.0393744, 0.0339315, 0.154046],
        ]
    )
    expected = probabilities.copy()
    expected[range(5), [0, 1, 5, 1, 0]] = [
        -0.69824,
        -0.602467,
        -0.797544,
        -0.570478,
        -0.576714,
    ]
    inputs, targets = mx.array(np.log(probabilities)[:, None]), [[0, 1, 1, 0]]
    _, gradient = loss_and_gradient(inputs, mx.array(targets), 5, 4, blank=5)
    np.testing.assert_allclose(to_numpy(gradient)[:, 0], expected, atol=2e-6)


def test_gradient_equals_the_reference(rng, dtype, with_logits):
    problem = random_problem(rng, with_logits=with_logits)
    loss, gradient = problem.run(dtype)
    assert gradient.dtype == dtype
    assert loss.dtype == (mx.float64 if dtype == mx.float64 else mx.float32)
    assert_gradient_close(gradient, problem.expected(dtype)[1], dtype)


@pytest.mark.parametrize("shape", ["1x1x2x1", "3x1x2x1", "40x17x3x15", "90x2x300x31"])
def test_gradient_equals_the_reference_at_odd_shapes(rng, shape, with_logits):
    T, N, C, S = map(int, shape.split("x"))
    problem = random_problem(rng, T, N, C, S, with_logits=with_logits)
    assert_gradient_close(problem.run()[1], problem.expected()[1])


@pytest.mark.parametrize("shape", ["40x512x32x12", "9x7x50000x4", "9x8x50000x4"])
def test_gradient_equals_the_reference_for_many_items_and_classes(
    rng, shape, dtype, with_logits
):
    T, N, C, S = map(int, shape.split("x"))
    random_problem(rng, T, N, C, S, with_logits=with_logits).check(dtype)


@pytest.mark.parametrize("blank", [0, 4, 8])
def test_blank_may_be_any_class(rng, blank, with_logits):
    problem = random_problem(rng, blank=blank, with_logits=with_logits)
    assert_gradient_close(problem.run()[1], problem.expected()[1])


def test_label_equal_to_the_blank_is_one_more_state(rng):
    problem = random_problem(rng)
    problem.targets[:, ::3] = problem.blank
    assert_gradient_close(problem.run()[1], problem.expected()[1])


@pytest.mark.parametrize("spread", [0, 1, 20])
def test_gradient_through_log_softmax_is_the_logits_gradient(rng, spread):
    problem = random_problem(rng, spread=spread)
    logits, *rest = problem.arrays()

    def loss(x):
        log_probs = x - mx.logsumexp(x, axis=-1, keepdims=True)
        return ctc_loss(log_probs, *rest, reduction="sum")

    _, expected = problem.run()
    np.testing.assert_allclose(mx.grad(loss)(logits), expected, atol=1e-5)


def test_logits_gradient_is_the_finite_difference(rng, dtype):
    if dtype in (mx.float16, mx.bfloat16):
        pytest.skip("a step that the dtype resolves is too long for a difference")
    step, tolerance = (1e-4, 1e-8) if dtype == mx.float64 else (0.1, 5e-4)
    logits, *rest = random_problem(rng).arrays(dtype)

    def loss(x):
        losses = ctc_loss(x, *rest, reduction="none", with_logits=True)
        return to_numpy(losses).sum()

    gradient = to_numpy(loss_and_gradient(logits, *rest, with_logits=True)[1])
    for _ in range(10):
        direction = rng.normal(size=logits.shape)
        direction /= np.linalg.norm(direction)
        move = mx.array(step * direction, dtype)
        difference = (loss(logits + move) - loss(logits - move)) / 2
        assert difference / step == pytest.approx(
            (gradient * direction).sum(), abs=tolerance
        )


def test_logits_gradient_sums_to_zero_in_every_frame(rng):
    _, gradient = random_problem(rng).run()
    np.testing.assert_allclose(gradient.sum(axis=-1), 0, atol=1e-6)


def test_gradient_scales_with_each_items_cotangent(rng, with_logits):
    problem = random_problem(rng, with_logits=with_logits)
    weights = rng.normal(size=6).astype(np.float32)
    _, gradient = problem.run(cotangent=mx.array(weights))
    assert_gradient_close(gradient, weights[:, None] * problem.expected()[1])


@pytest.mark.parametrize("reduction", REDUCTIONS[1:])
def test_reduced_loss_has_the_reduced_gradient(rng, reduction):
    problem = random_problem(rng)
    inputs, *rest = problem.arrays()

    def loss(x):
        return ctc_loss(x, *rest, reduction=reduction, with_logits=True)

    _, expected = problem.expected()
    labels = np.maximum(problem.target_lengths, 1)
    divisors = {
        "sum": 1,
        "mean": len(labels) * labels[:, None],
        "mean_batch": len(labels),
        "mean_volume": problem.target_lengths.sum(),
    }
    expected /= divisors[reduction]
    assert_gradient_close(mx.grad(loss)(inputs), expected)


def test_frames_past_the_length_get_exactly_zero(rng, dtype, with_logits):
    problem = random_problem(rng, with_logits=with_logits)
    _, gradient = problem.run(dtype)
    for n, length in enumerate(problem.input_lengths):
        assert not to_numpy(gradient)[length:, n].any()


@pytest.mark.parametrize("zero_infinity", [False, True])
def test_infeasible_item_has_zero_gradient_beside_feasible_ones(
    rng, zero_infinity, with_logits
):
    problem = random_problem(rng, with_logits=with_logits)
    problem.target_lengths[:] = 8
    problem.input_lengths[2] = 7
    loss, gradient = problem.run(zero_infinity=zero_infinity)
    expected_loss, expected_gradient = problem.expected()
    assert loss[2].item() == (0 if zero_infinity else np.inf)
    assert expected_loss[2] == np.inf
    assert not to_numpy(gradient)[:, 2].any()
    assert np.abs(to_numpy(gradient)).sum(axis=(0, 2)).astype(bool).sum() == 5
    assert_gradient_close(gradient, expected_gradient)


def test_infinite_mean_has_a_finite_gradient(rng):
    problem = random_problem(rng)
    problem.input_lengths[problem.target_lengths.argmax()] = 3
    inputs, *rest = problem.arrays()
    loss, gradient = mx.value_and_grad(lambda x: ctc_loss(x, *rest, with_logits=True))(
        inputs
    )
    assert loss.item() == np.inf
    assert mx.isfinite(gradient).all().item()


def test_zero_cotangent_gives_exactly_zero(rng):
    problem = random_problem(rng)
    problem.inputs[3, 1] = np.nan
    cotangent = mx.array([1.0, 0, 1, 0, 1, 1])
    loss, gradient = problem.run(cotangent=cotangent)
    assert np.isnan(loss[1].item())
    assert not to_numpy(gradient)[:, [1, 3]].any()
    assert np.isfinite(to_numpy(gradient)).all()
