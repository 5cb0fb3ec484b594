# The gradient of a model that is nearly certain, of the kernels on the emulator: the
# bounds of tests/test_confident_gradients.py.

import ctc_on_emulator
import exact
import mlx.core as mx
import numpy as np
import pytest
import reference
from problems import TOLERANCE, Problem, to_numpy


def check(emulator, problem):
    run = ctc_on_emulator.run(emulator, problem)
    gradient = to_numpy(run.gradient)
    exact.assert_gradient_is_exact(gradient, problem, on_a_gpu=True)
    return gradient


@pytest.mark.parametrize("target", [[], [1]])
def test_a_frame_that_is_certain_to_eight_digits(emulator, target, with_logits):
    scores = np.tile([20.0, 0.0, 0.0], (100, 1, 1))
    if not with_logits:
        scores = reference.log_softmax(scores)
    targets = np.array([target], int).reshape(1, -1)
    problem = Problem(scores, targets, [100], [len(target)], with_logits=with_logits)
    row = check(emulator, problem)[0, 0]
    if not target:
        expected = [-4.122307e-9, 2.061154e-9, 2.061154e-9]
        np.testing.assert_allclose(row, expected, 4e-6)


# Rows side by side, long rows, several windows, short segments of which a threadgroup
# writes a part, classes with many labels.
@pytest.mark.parametrize("margin", [2, 8, 14, 20, 25])
@pytest.mark.parametrize(
    ("T", "S", "C"),
    [(70, 10, 32), (40, 6, 1100), (150, 66, 30), (330, 300, 40), (90, 40, 3)],
)
def test_confident_model(emulator, rng, T, S, C, margin, with_logits):
    problem = exact.confident(
        rng,
        T,
        C,
        S,
        margin,
        with_logits,
        undecided=0 if margin == 14 and T > 2 * S else None,
    )
    check(emulator, problem)


@pytest.mark.parametrize("margin", [8, 14, 20])
@pytest.mark.parametrize("C", [3, 30])
def test_labels_without_blanks_between_them(emulator, rng, C, margin, with_logits):
    check(emulator, exact.confident(rng, 90, C, 40, margin, with_logits, blanks=False))


def test_two_labels_of_a_class_share_its_frames(emulator, with_logits):
    # One frame, which may be any, is the blank between them.
    scores = np.tile([-20.0, 0.0, -20.0], (300, 1, 1))
    if not with_logits:
        scores = reference.log_softmax(scores)
    targets = np.array([[1, 1]])
    check(emulator, Problem(scores, targets, [300], [2], with_logits=with_logits))


@pytest.mark.parametrize("margin", [12, 20])
def test_masked_classes(emulator, rng, margin, with_logits):
    # In numbers of extended range.
    problem = exact.confident(rng, 90, 32, 10, margin, with_logits)
    masked = rng.random(problem.inputs.shape) < 0.2
    masked &= problem.inputs < problem.inputs.max(axis=2, keepdims=True)
    problem.inputs[masked] = -np.inf
    check(emulator, problem)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_narrow_scores(emulator, rng, dtype):
    problem = exact.confident(rng, 70, 32, 10, 14, with_logits=True)
    gradient = to_numpy(ctc_on_emulator.run(emulator, problem, dtype).gradient)
    expected, besides = exact.exact_gradient(problem, dtype)
    rounding = TOLERANCE[dtype].rounding * np.abs(expected)
    if dtype == mx.float16:
        rounding += 2**-25  # half of the least number
    allowed = exact.allowed_of_gradient(besides, on_a_gpu=True)[..., None] + rounding
    assert (np.abs(gradient - expected) <= allowed).all()
