# The loss within 1e-6 of its value, or 1e-9, of float64 on the same input, for losses
# of every size.

import exact
import mlx.core as mx
import numpy as np
import pytest
from problems import random_problem, to_numpy

from mlx_ctc import ctc_loss

pytestmark = pytest.mark.usefixtures("device")


def check(problem, dtype=mx.float32):
    expected = exact.exact_loss(problem, dtype)
    losses = ctc_loss(*problem.arrays(dtype), reduction="none", **problem.options)
    error = np.abs(to_numpy(losses) - expected)
    assert (error <= exact.allowed(expected)).all(), (losses, expected, error)
    return expected


@pytest.mark.parametrize("eps", [1e-4, 1e-6, 1e-7, 3e-8, 1e-8, 1e-9])
@pytest.mark.parametrize("T", [100, 10000, 100000])
def test_one_label_among_certain_blanks(T, eps):
    expected = check(exact.one_label(T, eps))
    assert expected == pytest.approx(T * eps, rel=1e-3, abs=1e-8)


# Of these margins in nats the losses are from 1e-9 to 1e4.
@pytest.mark.parametrize("margin", [4, 8, 12, 16, 20, 30, 45])
@pytest.mark.parametrize("undecided", [None, 0, 3])
@pytest.mark.parametrize(
    ("T", "S", "C"), [(500, 60, 32), (500, 60, 300), (10000, 300, 32)]
)
def test_confident_model(rng, T, S, C, margin, undecided, with_logits):
    check(exact.confident(rng, T, C, S, margin, with_logits, undecided=undecided))


@pytest.mark.parametrize("margin", [8, 16, 30])
def test_confident_model_in_a_hundred_thousand_frames(rng, margin, with_logits):
    check(exact.confident(rng, 100000, 32, 20, margin, with_logits, undecided=0))


@pytest.mark.parametrize("margin", [6, 16, 25])
@pytest.mark.parametrize("C", [32, 300])
def test_confident_model_in_every_dtype(rng, dtype, C, margin, with_logits):
    check(exact.confident(rng, 700, C, 50, margin, with_logits), dtype)


@pytest.mark.parametrize("margin", [6, 12, 20])
def test_confident_model_with_masked_classes(rng, margin, with_logits):
    problem = exact.confident(rng, 2000, 32, 80, margin, with_logits)
    masked = rng.random(problem.inputs.shape) < 0.2
    masked &= problem.inputs < problem.inputs.max(axis=2, keepdims=True)
    problem.inputs[masked] = -np.inf
    check(problem)


@pytest.mark.parametrize("offset", [-1e4, -100, 30, 1e3, 1e5])
def test_logits_may_lie_anywhere(rng, offset):
    problem = exact.confident(rng, 500, 32, 40, 14, with_logits=True)
    problem.inputs += offset
    check(problem)


def test_loss_of_untrained_models(rng, with_logits):
    # Log-probabilities in float64 are as exact, because the loss is great.
    problem = random_problem(rng, T=3000, N=4, C=32, S=200, with_logits=with_logits)
    losses = ctc_loss(*problem.arrays(), reduction="none", **problem.options)
    expected, _ = problem.expected()
    assert (expected > 100).all()
    np.testing.assert_allclose(losses, expected, exact.RELATIVE, 0)


def test_exp_is_within_a_unit_in_the_last_place():
    # The same score in all frames: the loss is T times the logarithm of one rounded
    # probability, between 0.74 and 0.84.
    T, scores = 1000, np.linspace(-0.3, -0.18, 100).astype(np.float32)
    log_probs = mx.broadcast_to(mx.array(scores)[:, None], (T, 100, 1))
    losses = ctc_loss(log_probs, mx.zeros((100, 0), mx.int32), T, 0, reduction="none")
    errors = np.abs(to_numpy(losses) / T + scores)
    assert errors.max() <= 2**-24
