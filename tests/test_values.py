# The loss: closed forms, then every path of tiny problems, then the reference.

from itertools import pairwise
from math import comb, log

import mlx.core as mx
import numpy as np
import pytest
import reference
from problems import (
    LONG,
    REPEATING,
    Problem,
    assert_loss_close,
    random_problem,
    to_numpy,
)

from mlx_ctc import ctc_loss
from mlx_ctc.functional import REDUCTIONS

pytestmark = pytest.mark.usefixtures("device")


def log_probabilities(rng, T, C):
    return reference.log_softmax(rng.normal(size=(T, C)))


def loss_of(log_probs, target, blank=0):
    """The loss of one sequence whose target is all of the list given."""
    return ctc_loss(
        mx.array(log_probs, mx.float32),
        mx.array(target, mx.int32),
        len(log_probs),
        len(target),
        blank=blank,
        reduction="sum",
    )


def test_as_many_frames_as_labels_leaves_one_path(rng):
    log_probs = log_probabilities(rng, 4, 6)
    expected = -log_probs[range(4), [3, 1, 5, 2]].sum()
    assert_loss_close(loss_of(log_probs, [3, 1, 5, 2]), expected)


def test_one_label_in_two_frames_has_three_paths():
    a, b = 0.6, 0.3  # the label's probability in each frame; the blank has the rest
    probabilities = np.array([[1 - a, a], [1 - b, b]])
    expected = -log(a * b + a * (1 - b) + (1 - a) * b)
    assert_loss_close(loss_of(np.log(probabilities), [1]), expected)


def test_repeated_label_needs_a_blank_between(rng):
    log_probs = log_probabilities(rng, 3, 4)
    expected = -log_probs[range(3), [2, 0, 2]].sum()
    assert_loss_close(loss_of(log_probs, [2, 2]), expected)


def test_repeated_label_in_two_frames_is_infeasible(rng):
    assert loss_of(log_probabilities(rng, 2, 4), [2, 2]).item() == np.inf


def test_more_labels_than_frames_is_infeasible(rng):
    assert loss_of(log_probabilities(rng, 2, 4), [1, 2, 3]).item() == np.inf


def test_empty_target_is_all_blank(rng):
    log_probs = log_probabilities(rng, 7, 4)
    assert_loss_close(loss_of(log_probs, [], blank=2), -log_probs[:, 2].sum())


def test_no_frames_for_no_labels_costs_nothing():
    assert loss_of(np.zeros((0, 4)), []).item() == 0


def test_no_frames_for_a_label_is_infeasible():
    assert loss_of(np.zeros((0, 4)), [1]).item() == np.inf


def test_zero_input_length_ignores_the_frames():
    loss = ctc_loss(
        mx.full((5, 2, 4), mx.nan),
        mx.array([[1], [1]]),
        mx.array([0, 0]),
        mx.array([0, 1]),
        reduction="none",
    )
    assert loss.tolist() == [0, np.inf]


@pytest.mark.parametrize(
    ("T", "target"),
    [
        (1, [1]),
        (5, [1, 2, 3, 4]),
        (9, [1, 1, 2, 2, 2]),
        (60, [1, 2] * 10),
        (300, [3] * 100),
    ],
)
def test_equal_probabilities_count_the_paths(T, target):
    C, S = 5, len(target)
    repeats = sum(a == b for a, b in pairwise(target))
    # Choose where each label's run begins and where the blanks after it do.
    paths = comb(T + S - repeats, 2 * S)
    expected = T * log(C) - log(paths)
    assert_loss_close(loss_of(np.full((T, C), -log(C)), target), expected)


def test_a_single_class_is_all_blank(device):
    loss = loss_of(np.full((8, 1), -0.25), [])
    last_bit = 0 if device == mx.cpu else 1e-7
    assert loss.item() == pytest.approx(2, rel=last_bit)


def test_certain_path_has_zero_loss():
    log_probs = np.full((6, 3), -np.inf)
    log_probs[range(6), [1, 1, 0, 1, 2, 2]] = 0
    assert loss_of(log_probs, [1, 1, 2]).item() == 0


@pytest.mark.parametrize("T", [0, 3])
def test_zero_loss_has_no_sign(T):
    assert not np.signbit(loss_of(np.zeros((T, 1)), []).item())


def test_loss_of_logits_is_never_negative(rng):
    problem = random_problem(rng, T=50, N=64, C=4, S=1, ragged=False, spread=1)
    problem.inputs[:, :, 0] += rng.uniform(5, 25, size=(50, 64))
    problem.inputs[25, range(64), problem.targets[:, 0]] += 50
    loss, _ = problem.run()
    assert loss.min().item() >= 0
    assert loss.max().item() < 1


def test_unnormalised_log_probs_may_have_a_negative_loss():
    expected = -4 - log(comb(5, 2))  # four frames of e each, ten paths
    assert_loss_close(loss_of(np.ones((4, 3)), [1]), expected)


def test_published_example_of_one_path():
    # TensorFlow, ctc_loss_op_test.py: testBasic, first item.
    loss = loss_of(np.log(LONG), [0, 1, 2, 1, 0], blank=5)
    assert loss.item() == pytest.approx(3.34211, abs=1e-5)


def test_published_example_with_a_repeat():
    # TensorFlow, ctc_loss_op_test.py: testBasic, second item.
    loss = loss_of(np.log(REPEATING), [0, 1, 1, 0], blank=5)
    assert loss.item() == pytest.approx(5.42262, abs=1e-5)


@pytest.mark.parametrize("labels", [[], [1], [1, 1], [1, 2], [2, 1, 2], [1, 1, 1]])
@pytest.mark.parametrize("T", range(1, 7))
def test_loss_sums_every_path(rng, T, labels):
    log_probs = log_probabilities(rng, T, 3).astype(np.float32)
    expected, _ = reference.ctc_by_enumeration(log_probs.astype(np.float64), labels)
    assert_loss_close(loss_of(log_probs, labels), expected)


def test_loss_equals_the_reference(rng, dtype, with_logits):
    problem = random_problem(rng, with_logits=with_logits)
    loss, _ = problem.run(dtype)
    assert_loss_close(loss, problem.expected(dtype)[0], dtype)


@pytest.mark.parametrize("blank", [0, 4, 8])
def test_blank_may_be_any_class(rng, blank, with_logits):
    problem = random_problem(rng, blank=blank, with_logits=with_logits)
    assert_loss_close(problem.run()[0], problem.expected()[0])


def test_label_equal_to_the_blank_is_one_more_state(rng):
    problem = random_problem(rng)
    problem.targets[:, ::3] = problem.blank
    assert_loss_close(problem.run()[0], problem.expected()[0])


def test_label_equal_to_the_blank_can_make_the_loss_negative(with_logits):
    # Two frames of one class have one path without labels, and three with one.
    lengths, target_lengths = np.array([2, 2]), np.array([0, 1])
    zeros = np.zeros((2, 2, 1)), np.zeros((2, 1), int)
    problem = Problem(*zeros, lengths, target_lengths, with_logits=with_logits)
    assert_loss_close(problem.run()[0], [0, -log(3)])


@pytest.mark.parametrize("shape", ["1x1x2x1", "3x1x2x1", "40x17x3x15", "90x2x300x31"])
def test_loss_equals_the_reference_at_odd_shapes(rng, shape, with_logits):
    T, N, C, S = map(int, shape.split("x"))
    problem = random_problem(rng, T, N, C, S, with_logits=with_logits)
    assert_loss_close(problem.run()[0], problem.expected()[0])


def test_loss_does_not_depend_on_the_logits_offset(rng):
    problem = random_problem(rng)
    problem.inputs = np.round(problem.inputs * 64) / 64  # so that + 1000 is exact
    loss, _ = problem.run()
    problem.inputs += 1000 * rng.integers(-1, 2, size=(*problem.inputs.shape[:2], 1))
    assert_loss_close(problem.run()[0], to_numpy(loss))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_reduction_of_losses(rng, reduction, zero_infinity):
    problem = random_problem(rng)
    problem.input_lengths[problem.target_lengths.argmax()] = 3
    losses, _ = problem.expected()
    assert np.isinf(losses).sum() == 1
    loss = ctc_loss(
        *problem.arrays(),
        reduction=reduction,
        zero_infinity=zero_infinity,
        with_logits=True,
    )
    expected = reference.reduce(
        losses, problem.target_lengths, reduction, zero_infinity
    )
    assert loss.shape == np.shape(expected)
    assert_loss_close(loss, expected)


def test_mean_divides_an_empty_target_by_one(rng):
    log_probs = log_probabilities(rng, 5, 3)
    loss = ctc_loss(mx.array(log_probs[:, None]), mx.zeros((1, 0), mx.int32), [5], [0])
    assert_loss_close(loss, -log_probs[:, 0].sum())


def test_loss_below_the_range_is_exact(device):
    # One path of a thousand frames at e^-100000 each.
    log_probs = mx.full((1000, 2), -1e5)
    assert_loss_close(ctc_loss(log_probs, mx.array([], mx.int32), 1000, 0), 1e8)


def test_loss_above_the_range_is_infinite(device):
    log_probs = mx.full((2000, 2), -1e5)
    loss = ctc_loss(log_probs, mx.array([], mx.int32), 2000, 0)
    assert loss.item() == np.inf
