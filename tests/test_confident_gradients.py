# The gradient of a model that is nearly certain: softmax and gamma are both near 1 for
# one class of a frame and near 0 for the others, and their difference is far below the
# rounding of a float near 1. docs/numerics.md says what is promised.

import exact
import mlx.core as mx
import numpy as np
import pytest
import reference
from problems import Problem, to_numpy

pytestmark = pytest.mark.usefixtures("device")


def on_a_gpu():
    return mx.default_device() == mx.gpu


def check(problem, factor=1):
    gradient = to_numpy(problem.run()[1])
    exact.assert_gradient_is_exact(gradient, problem, on_a_gpu(), factor)
    return gradient


@pytest.mark.parametrize("target", [[], [1]])
def test_a_frame_that_is_certain_to_eight_digits(with_logits, target):
    scores = np.tile([20.0, 0.0, 0.0], (100, 1, 1))
    if not with_logits:
        scores = reference.log_softmax(scores)
    targets = np.array([target], int).reshape(1, -1)
    problem = Problem(scores, targets, [100], [len(target)], with_logits=with_logits)
    row = check(problem)[0, 0]
    if not target:
        expected = [-4.122307e-9, 2.061154e-9, 2.061154e-9]
        np.testing.assert_allclose(row, expected, 4e-6 if on_a_gpu() else 1e-6)


# Few classes and many, of which the CPU looks at those of the target alone.
@pytest.mark.parametrize("margin", [2, 4, 8, 12, 16, 20, 25])
@pytest.mark.parametrize("undecided", [None, 0])
@pytest.mark.parametrize(("T", "S", "C"), [(500, 60, 32), (500, 60, 300), (90, 40, 3)])
def test_confident_model(rng, T, S, C, margin, undecided, with_logits):
    check(exact.confident(rng, T, C, S, margin, with_logits, undecided=undecided))


@pytest.mark.parametrize("margin", [8, 14, 20])
@pytest.mark.parametrize("C", [3, 32, 300])
def test_labels_without_blanks_between_them(rng, C, margin, with_logits):
    check(exact.confident(rng, 500, C, 60, margin, with_logits, blanks=False))


@pytest.mark.parametrize("margin", [12, 20])
def test_confident_model_in_ten_thousand_frames(rng, margin, with_logits):
    check(exact.confident(rng, 10000, 32, 300, margin, with_logits))


@pytest.mark.parametrize("margin", [12, 20])
@pytest.mark.parametrize("C", [32, 300])
def test_confident_model_with_masked_classes(rng, margin, C, with_logits):
    # In numbers of extended range, whose mantissas are floats.
    problem = exact.confident(rng, 500, C, 60, margin, with_logits)
    masked = rng.random(problem.inputs.shape) < 0.2
    masked &= problem.inputs < problem.inputs.max(axis=2, keepdims=True)
    problem.inputs[masked] = -np.inf
    check(problem, factor=4)


@pytest.mark.parametrize("offset", [-1e3, 50, 1e3, 1e5])
def test_logits_may_lie_anywhere(rng, offset):
    problem = exact.confident(rng, 500, 32, 40, 14, with_logits=True)
    problem.inputs += offset
    check(problem)


@pytest.mark.parametrize("cotangent", [1e-20, -3.0, 1e20])
def test_any_cotangent(rng, cotangent, with_logits):
    problem = exact.confident(rng, 300, 32, 40, 14, with_logits)
    _, besides = exact.exact_gradient(problem)
    _, gradient = problem.run()
    _, scaled = problem.run(cotangent=mx.array([cotangent]))
    error = np.abs(to_numpy(scaled) / cotangent - to_numpy(gradient))
    assert (error.max(axis=2) <= exact.allowed_of_gradient(besides, on_a_gpu())).all()


@pytest.mark.parametrize("C", [8, 300])
def test_two_classes_that_share_a_frame(C, with_logits):
    # softmax and gamma of both are a half, or at either side of it by rounding.
    scores = np.full((1, 1, C), -30.0)
    for difference in (0, 1e-7, -1e-7, 1e-6):
        scores[0, 0, :2] = difference, 0
        inputs = scores if with_logits else reference.log_softmax(scores)
        for target in ([], [1]):
            targets = np.array([target], int).reshape(1, -1)
            check(Problem(inputs, targets, [1], [len(target)], 0, with_logits))


def test_scores_above_zero_keep_torchs_rule(rng, classes):
    # exp(score) - gamma, also where exp(score) is above 1.
    problem = exact.confident(rng, 60, classes, 6, 14, with_logits=False)
    problem.inputs += rng.choice([0, 1e-6, 0.1, 0.7, 2], (60, 1, 1))
    check(problem)
