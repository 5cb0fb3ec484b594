# NaN and infinities: harmless where they are not used, told where they are.

import mlx.core as mx
import numpy as np
import pytest
from problems import (
    assert_gradient_close,
    assert_loss_close,
    random_problem,
    to_numpy,
)

from mlx_ctc import ctc_loss

pytestmark = pytest.mark.usefixtures("device")

BAD = [np.nan, np.inf]


def unused_class(problem, n):
    used = {problem.blank, *problem.targets[n, : problem.target_lengths[n]]}
    return next(c for c in range(problem.inputs.shape[2]) if c not in used)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 3e38])
def test_numbers_in_padding_frames_do_no_harm(
    rng, garbage, dtype, with_logits, classes
):
    problem = random_problem(rng, C=classes, with_logits=with_logits)
    loss, gradient = problem.run(dtype)
    for n, length in enumerate(problem.input_lengths):
        problem.inputs[length:, n] = garbage
    loss_beside, gradient_beside = problem.run(dtype)
    assert mx.array_equal(loss, loss_beside)
    assert mx.array_equal(gradient, gradient_beside)


@pytest.mark.parametrize("garbage", [-1, -(2**31), 9, 2**31 - 1])
def test_labels_in_target_padding_do_no_harm(rng, garbage):
    problem = random_problem(rng)
    for n, length in enumerate(problem.target_lengths):
        problem.targets[n, length:] = garbage
    problem.check()


@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("bad", BAD)
def test_bad_logit_makes_its_item_nan_and_no_other(rng, bad, zero_infinity, classes):
    problem = random_problem(rng, C=classes)
    expected_loss, expected_gradient = problem.expected()
    n, length = 2, problem.input_lengths[2]
    problem.inputs[4, n, unused_class(problem, n)] = bad
    loss, gradient = problem.run(zero_infinity=zero_infinity)
    expected_loss[n] = np.nan
    expected_gradient[:length, n] = np.nan
    assert_loss_close(loss, expected_loss)
    assert_gradient_close(gradient, expected_gradient)


@pytest.mark.parametrize("which", ["blank", "label"])
@pytest.mark.parametrize("bad", BAD)
def test_bad_log_prob_of_a_used_class_makes_its_item_nan(
    rng, bad, which, dtype, classes
):
    problem = random_problem(rng, C=classes, with_logits=False)
    expected_loss, expected_gradient = problem.expected(dtype)
    n, length = problem.target_lengths.argmax(), problem.input_lengths
    c = problem.blank if which == "blank" else problem.targets[n, 3]
    problem.inputs[length[n] - 1, n, c] = bad
    loss, gradient = problem.run(dtype)
    expected_loss[n] = np.nan
    expected_gradient[: length[n], n] = np.nan
    assert_loss_close(loss, expected_loss, dtype)
    assert_gradient_close(gradient, expected_gradient, dtype)


@pytest.mark.parametrize("bad", BAD)
def test_bad_log_prob_of_an_unused_class_leaves_the_loss(rng, bad):
    problem = random_problem(rng, with_logits=False)
    expected_loss, expected_gradient = problem.expected()
    n = 2
    c = unused_class(problem, n)
    problem.inputs[4, n, c] = bad
    expected_gradient[4, n, c] = bad  # exp(log_prob) - 0
    loss, gradient = problem.run()
    assert_loss_close(loss, expected_loss)
    assert_gradient_close(gradient, expected_gradient)


def test_masked_classes_give_the_references_gradient(rng, dtype, with_logits):
    problem = random_problem(rng, with_logits=with_logits, T=40)
    masked = rng.random(problem.inputs.shape) < 0.3
    problem.inputs[masked] = -np.inf
    problem.inputs[:, :, 0][masked.all(axis=2)] = 0  # a frame has to say something
    losses, _ = problem.expected(dtype)
    assert np.isfinite(losses).any()
    problem.check(dtype)


def test_target_masked_in_every_frame_is_infeasible(rng, with_logits):
    problem = random_problem(rng, with_logits=with_logits)
    problem.target_lengths[1] = 8
    problem.inputs[:, 1, problem.targets[1, 0]] = -np.inf
    loss, gradient = problem.run()
    assert loss[1].item() == np.inf
    assert not to_numpy(gradient)[:, 1].any()
    problem.check()


@pytest.mark.parametrize("mask", [-1e9, np.finfo(np.float32).min])
def test_large_negative_mask_counts_as_zero(rng, mask, with_logits):
    problem = random_problem(rng, with_logits=with_logits, T=40)
    masked = rng.random(problem.inputs.shape) < 0.3
    masked[:, :, 0] = False
    masked[:, 1, problem.targets[1, 0]] = True
    problem.target_lengths[1] = 8
    problem.inputs[masked] = -np.inf
    loss, gradient = problem.run()
    assert loss[1].item() == np.inf
    problem.inputs[masked] = mask
    masked_loss, masked_gradient = problem.run()
    assert mx.array_equal(loss, masked_loss)
    assert mx.array_equal(gradient, masked_gradient)


def test_masks_add_up_over_many_frames(rng, with_logits):
    # A zero stays a zero however often it is multiplied.
    problem = random_problem(rng, T=5000, N=1, C=4, S=3, with_logits=with_logits)
    problem.target_lengths[:] = 3
    problem.inputs[:, :, problem.targets[0, 1]] = np.finfo(np.float32).min
    loss, gradient = problem.run()
    assert loss.item() == np.inf
    assert not to_numpy(gradient).any()


@pytest.mark.parametrize("spread", [300, 1e4, 1e6])
def test_wide_logits_are_exact(device, rng, spread, with_logits):
    if device == mx.gpu and spread == 1e6:
        pytest.skip("a GPU takes exp(-2.9e6) for zero")
    # Every path's probability is far below the range of float32, and of float64.
    random_problem(rng, spread=spread, with_logits=with_logits).check()


@pytest.mark.parametrize(("score", "is_finite"), [(-1.74e6, True), (-1.86e6, False)])
def test_losses_above_1_74e8_or_1_85e8_are_infinite(score, is_finite):
    log_probs = mx.full((100, 1, 2), score)
    loss = ctc_loss(log_probs, mx.zeros((1, 0), mx.int32), 100, 0, reduction="sum")
    expected = -100 * score if is_finite else np.inf
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_a_gpu_takes_a_score_below_minus_2_9e6_for_zero(device):
    for score in -2.89e6, -2.91e6:
        loss = ctc_loss(mx.full((1, 1, 2), score), [[1]], 1, 1, reduction="sum")
        is_zero = device == mx.gpu and score < -2.9e6
        assert loss.item() == (np.inf if is_zero else pytest.approx(-score))
