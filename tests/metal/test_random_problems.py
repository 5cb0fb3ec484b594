# The kernels on random problems: lengths around whole windows and segments, few and
# many classes, models that know little or all, classes that are masked.

import ctc_on_emulator
import mlx.core as mx
import numpy as np
import pytest
import reference
from problems import assert_gradient_close, assert_loss_close, random_problem

# From 129 labels on segments have 8 frames, not 16.
TARGETS = [0, 1, 5, 31, 32, 33, 63, 64, 65, 100, 128, 129]


@pytest.mark.parametrize("seed", range(24))
def test_random_problem(emulator, seed):
    rng = np.random.default_rng(seed)
    problem = random_problem(
        rng,
        T=rng.integers(1, 140),
        S=rng.choice(TARGETS),
        C=rng.choice([2, 5, 30]),
        N=rng.choice([3, 9]),
        ragged=rng.random() < 0.5,
        with_logits=rng.random() < 0.5,
    )
    scores = problem.inputs * rng.choice([0.1, 1, 3, 30])
    masked = rng.random(scores.shape) < rng.choice([0, 0.1])
    masked[..., problem.blank] = False
    scores = np.where(masked, -np.inf, scores)
    if not problem.with_logits:
        scores = reference.log_softmax(scores)
    problem.inputs = scores.astype(np.float32)

    run = ctc_on_emulator.run(emulator, problem)
    loss, gradient = problem.expected(mx.float32)
    assert_loss_close(run.loss, loss)
    assert_gradient_close(run.gradient, gradient)
