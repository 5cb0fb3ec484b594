# Exact at any length: ten thousand frames lose no digits.

from math import lgamma

import mlx.core as mx
import numpy as np
import pytest
from problems import Problem, random_problem, to_numpy

pytestmark = pytest.mark.usefixtures("device")

# Relative, absolute where the loss itself is small, and absolute.
LOSS, SMALL_LOSS, GRADIENT = 1e-7, 1e-5, 5e-6


def check(problem, dtype=mx.float32):
    losses, gradients = problem.run(dtype)
    expected_losses, expected_gradients = problem.expected(dtype)
    np.testing.assert_allclose(losses, expected_losses, LOSS, SMALL_LOSS)
    np.testing.assert_allclose(to_numpy(gradients), expected_gradients, 0, GRADIENT)


@pytest.mark.parametrize("spread", [0, 1, 5, 30])
def test_ten_thousand_frames(rng, spread, with_logits):
    check(
        random_problem(
            rng,
            T=10000,
            N=2,
            C=32,
            S=200,
            ragged=False,
            spread=spread,
            with_logits=with_logits,
        )
    )


def test_ten_thousand_frames_for_a_long_target(rng):
    check(random_problem(rng, T=10000, N=1, C=40, S=2000, ragged=False))


def test_as_many_labels_as_frames_allow(rng):
    problem = random_problem(rng, T=3050, N=1, C=40, S=3000, ragged=False)
    problem.targets[0] = 1 + np.arange(3000) % 39
    check(problem)


def test_one_label_in_ten_thousand_frames(rng):
    check(random_problem(rng, T=10000, N=1, C=3, S=1, ragged=False, spread=10))


def test_ten_thousand_frames_of_a_confident_model(rng):
    # Each label is said for a few frames and the blank between: what training ends in.
    T, C, S = 10000, 32, 800
    problem = random_problem(rng, T=T, N=1, C=C, S=S, ragged=False, spread=1)
    said = np.zeros(T, int)
    for s, label in enumerate(problem.targets[0]):
        said[12 * s + 5 : 12 * s + 8] = label
    problem.inputs[range(T), 0, said] += 12
    check(problem)


def test_ten_thousand_frames_of_a_confidently_wrong_model(rng):
    # The best path lies thousands of nats below the likeliest sentence.
    T, C = 10000, 32
    problem = random_problem(rng, T=T, N=1, C=C, S=300, ragged=False, spread=1)
    problem.inputs[range(T), 0, rng.integers(0, C, T)] += 40
    check(problem)


def test_scores_too_far_apart_for_doubles_here_and_there(rng):
    # The CPU takes the frames in runs, and these runs in another way than the rest.
    problem = random_problem(rng, T=10000, N=2, C=32, S=200, ragged=False, spread=2)
    for t in rng.integers(0, 10000, 12):
        problem.inputs[t] *= 40
    problem.inputs[rng.integers(0, 10000, 6), :, 7] = -np.inf
    check(problem)


def test_a_label_that_waits_for_thousands_of_frames(rng):
    # Labels fall out of a double's range beside their blanks.
    T, C = 10000, 12
    problem = random_problem(rng, T=T, N=1, C=C, S=9, ragged=False, spread=1)
    problem.inputs[:, :, 0] += 3
    check(problem)


def log_comb(n, k):
    """Log of the binomials of n over k, which are zero where k > n."""
    fits = n >= k
    n = np.where(fits, n, k)
    log_factorial = np.vectorize(lambda n: lgamma(n + 1))
    log_value = log_factorial(n) - log_factorial(k) - log_factorial(n - k)
    return np.where(fits, log_value, -np.inf)


def log_paths(T, S):
    """How many paths T frames have for S labels, none like the one before."""
    return log_comb(T + S, 2 * S)


def label_gammas(T, S, t):
    """The part of those paths (frames, S) that are in each label at the frames t."""
    t, i = np.reshape(t, (-1, 1)), np.arange(S)
    log_before = log_comb(t + 1 + i, 2 * i + 1)
    log_after = log_comb(T - t + S - 1 - i, 2 * (S - i) - 1)
    return np.exp(log_before + log_after - log_paths(T, S))


@pytest.mark.parametrize(
    ("T", "S", "C"), [(20000, 20, 20), (50000, 20, 20), (10500, 10000, 4)]
)
def test_equal_probabilities_count_the_paths_through_each_label(T, S, C):
    targets = 1 + np.arange(S) % (C - 1)
    loss, gradient = Problem(np.zeros((T, 1, C)), targets[None], [T], [S]).run()
    np.testing.assert_allclose(loss, [T * np.log(C) - log_paths(T, S)], LOSS)

    t = np.linspace(0, T - 1, 500 if S < 100 else 5).astype(int)
    gammas = label_gammas(T, S, t)
    expected = [1 / C - gammas[:, targets == c].sum(axis=1) for c in range(1, C)]
    np.testing.assert_allclose(
        to_numpy(gradient)[t, 0, 1:], np.transpose(expected), 0, GRADIENT
    )
