# What the kernels make of odd items, bad numbers, and values that are out of range.
#
# The emulator adds what a GPU cannot show: that nothing outside of the arrays was
# touched, whatever the lengths and labels said.

import ctc_on_emulator
import exact
import mlx.core as mx
import numpy as np
import pytest
from buffer import Buffer
from problems import assert_gradient_close, assert_loss_close, random_problem


def random(**options):
    return random_problem(np.random.default_rng(5), **options)


def check(run, loss, gradient):
    assert_loss_close(run.loss, loss)
    assert_gradient_close(run.gradient, gradient)


def test_odd_items(emulator, with_logits):
    problem = random(N=8, with_logits=with_logits)
    problem.target_lengths[:] = [0, 0, 8, 8, 8, 1, 3, 8]
    problem.input_lengths[:] = [30, 0, 0, 7, 8, 1, 4, 30]
    problem.targets[4] = range(1, 9)  # just fits
    problem.targets[6, :3] = [2, 2, 2]  # needs five frames
    problem.targets[7] = 3
    loss, gradient = problem.expected()
    assert np.isinf(loss).tolist() == [0, 0, 1, 1, 0, 0, 1, 0]
    check(ctc_on_emulator.run(emulator, problem), loss, gradient)
    loss[np.isinf(loss)] = 0
    check(ctc_on_emulator.run(emulator, problem, zero_infinity=True), loss, gradient)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf])
def test_padding_does_no_harm(emulator, with_logits, garbage):
    problem = random(with_logits=with_logits)
    loss, gradient = problem.expected()
    for n, length in enumerate(problem.input_lengths):
        problem.inputs[length:, n] = garbage
    for n, length in enumerate(problem.target_lengths):
        problem.targets[n, length:] = [-1, 9, -(2**31), 2**31 - 1, 8, 0, 7, 9][length:]
    check(ctc_on_emulator.run(emulator, problem), loss, gradient)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_logit_makes_its_item_nan_and_no_other(emulator, bad):
    problem = random()
    loss, gradient = problem.expected()
    problem.inputs[4, 2, 7] = bad
    loss[2] = np.nan
    gradient[: problem.input_lengths[2], 2] = np.nan
    check(ctc_on_emulator.run(emulator, problem, zero_infinity=True), loss, gradient)


def test_nan_among_masked_logits_makes_its_item_nan(emulator):
    # All that one of the frame's threads reads.
    problem = random(C=16)
    loss, gradient = problem.expected()
    problem.inputs[4, 2, ::2] = -np.inf
    problem.inputs[4, 2, 6] = np.nan
    loss[2] = np.nan
    gradient[: problem.input_lengths[2], 2] = np.nan
    check(ctc_on_emulator.run(emulator, problem), loss, gradient)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_log_prob_of_a_used_class_makes_its_item_nan(emulator, bad):
    problem = random(with_logits=False)
    loss, gradient = problem.expected()
    n = problem.target_lengths.argmax()
    length = problem.input_lengths[n]
    problem.inputs[length - 1, n, problem.targets[n, 3]] = bad
    problem.inputs[0, n - 1, problem.blank] = bad
    loss[[n, n - 1]] = np.nan
    gradient[:length, n] = np.nan
    gradient[: problem.input_lengths[n - 1], n - 1] = np.nan
    check(ctc_on_emulator.run(emulator, problem), loss, gradient)


@pytest.mark.parametrize("mask", [-np.inf, -1e9, np.finfo(np.float32).min])
def test_masked_classes_have_probability_zero(emulator, with_logits, mask):
    problem = random(T=40, with_logits=with_logits)
    masked = np.random.default_rng(3).random(problem.inputs.shape) < 0.3
    masked[:, :, 0] = False
    problem.target_lengths[1] = 8
    masked[:, 1, problem.targets[1, 0]] = True
    problem.inputs[masked] = -np.inf
    loss, gradient = problem.expected()
    assert np.isinf(loss[1])
    problem.inputs[masked] = mask
    check(ctc_on_emulator.run(emulator, problem), loss, gradient)


def test_what_is_out_of_range_is_nan_and_touches_nothing(emulator, with_logits):
    T, S, C = 30, 8, 9
    problem = random(T=T, N=10, S=S, C=C, with_logits=with_logits, ragged=False)
    loss, gradient = problem.expected()
    problem.input_lengths[:4] = [T + 1, -1, 2**31 - 1, -(2**31)]
    problem.target_lengths[4:7] = [S + 1, -1, 2**31 - 1]
    problem.targets[7:9, 7] = [C, -1]
    loss[:9] = np.nan
    gradient[:, :9] = np.nan
    check(ctc_on_emulator.run(emulator, problem, zero_infinity=True), loss, gradient)


def test_an_item_of_weight_zero_has_no_gradient(emulator):
    problem = random(N=4, ragged=False)
    loss, gradient = problem.expected()
    cotangent = np.array([2, 0, 0, -0.5])
    problem.inputs[4, 1, 7] = np.nan
    loss[1] = np.nan
    run = ctc_on_emulator.run(emulator, problem, cotangent=mx.array(cotangent))
    check(run, loss, gradient * cotangent[:, None])
    assert not np.array(run.gradient)[:, 1:3].any()


def test_inputs_may_be_batch_first(emulator, with_logits):
    problem = random(with_logits=with_logits)
    run = ctc_on_emulator.run(emulator, problem, batch_first=True)
    check(run, *problem.expected())


def test_a_cotangent_may_be_broadcast(emulator):
    problem = random()
    cotangent = Buffer.of(mx.array([3.0])).broadcast(6)
    run = ctc_on_emulator.run(emulator, problem, cotangent=cotangent)
    loss, gradient = problem.expected()
    check(run, loss, 3 * gradient)


@pytest.mark.parametrize("blank", [4, 8])
def test_the_blank_may_be_any_class(emulator, with_logits, blank):
    problem = random(blank=blank, with_logits=with_logits)
    check(ctc_on_emulator.run(emulator, problem), *problem.expected())


@pytest.mark.parametrize("margin", [10, 100])
def test_small_losses_of_logits_do_not_lose_digits_in_each_frame(emulator, margin):
    problem = random(T=60, S=1, C=5, ragged=False)
    problem.inputs[:, range(6), problem.targets[:, 0]] += margin
    check(ctc_on_emulator.run(emulator, problem), *problem.expected())


def test_segments_that_floats_do_not_hold(emulator, with_logits):
    sizes = {"T": 60, "S": 40, "C": 30}
    problem = random(spread=15, with_logits=with_logits, **sizes)
    problem.inputs[8:24] /= 15  # between segments that they do hold
    check(ctc_on_emulator.run(emulator, problem), *problem.expected())


def test_probabilities_far_below_the_range_of_float(emulator, with_logits):
    problem = random(spread=1e4, with_logits=with_logits)
    check(ctc_on_emulator.run(emulator, problem), *problem.expected())


@pytest.mark.parametrize("margin", [12, 20])
def test_gradient_of_a_model_that_is_nearly_certain(emulator, with_logits, margin):
    rng = np.random.default_rng(5)
    problem = exact.confident(rng, 60, 30, 8, margin, with_logits)
    expected, _ = exact.exact_gradient(problem)
    run = ctc_on_emulator.run(emulator, problem)
    assert_gradient_close(run.gradient, expected)
