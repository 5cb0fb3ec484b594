# Exact at any length: ten thousand frames lose no digits.

import mlx.core as mx
import numpy as np
import pytest
import reference
from problems import Problem, random_problem, to_numpy

pytestmark = pytest.mark.usefixtures("device")

# Relative, absolute where the loss itself is small, and absolute.
LOSS, SMALL_LOSS, GRADIENT = 1e-7, 1e-5, 1e-6


def check(problem, dtype=mx.float32, gradient=GRADIENT):
    losses, gradients = problem.run(dtype)
    expected_losses, expected_gradients = problem.expected(dtype)
    np.testing.assert_allclose(losses, expected_losses, LOSS, SMALL_LOSS)
    np.testing.assert_allclose(to_numpy(gradients), expected_gradients, 0, gradient)


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
    check(problem, gradient=1e-6)


@pytest.mark.parametrize("T", [1000, 10000])
@pytest.mark.parametrize("ulps", [-3, 0, 1, 2])
def test_rounding_of_probabilities_is_less_than_that_of_scores(T, ulps, with_logits):
    # The second label may begin in any frame: an alignment of the one differs from one
    # of the other in thousands of factors, each rounded alike.
    row = np.float32(-0.7) * np.float32([13, 1, 1 + ulps * 2.0**-24])
    inputs = np.tile(row, (T, 1, 1))
    problem = Problem(inputs, np.array([[1, 2]]), [T], [2], with_logits=with_logits)
    gradient, expected = problem.run()[1], problem.expected()[1]
    problem.inputs = inputs.astype(np.float64)
    problem.inputs[..., 1] += 2.0**-25  # half a unit in the last place
    moved = reference.ctc_loss(
        problem.inputs, problem.targets, [T], [2], with_logits=with_logits
    )[1]
    error = np.abs(to_numpy(gradient) - expected).max()
    assert error < np.abs(moved - expected).max()


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
    # alpha of a label becomes too small for the exponent that it shares with its blank.
    T, C = 10000, 12
    problem = random_problem(rng, T=T, N=1, C=C, S=9, ragged=False, spread=1)
    problem.inputs[:, :, 0] += 3
    check(problem)


@pytest.mark.parametrize(
    ("T", "S", "C"), [(20000, 20, 20), (50000, 20, 20), (10500, 10000, 4)]
)
def test_equal_probabilities_count_the_paths_through_each_label(T, S, C):
    targets = 1 + np.arange(S) % (C - 1)
    loss, gradient = Problem(np.zeros((T, 1, C)), targets[None], [T], [S]).run()
    expected = T * np.log(C) - reference.log_paths(T, S)
    np.testing.assert_allclose(loss, [expected], LOSS)

    t = np.linspace(0, T - 1, 500 if S < 100 else 5).astype(int)
    # What the GPU's floats lose in each segment adds up in equal frames.
    is_longest_on_gpu = T > 20000 and mx.default_device() == mx.gpu
    gammas = reference.share_of_paths(T, S, t)
    expected = [1 / C - gammas[:, targets == c].sum(axis=1) for c in range(1, C)]
    np.testing.assert_allclose(
        to_numpy(gradient)[t, 0, 1:],
        np.transpose(expected),
        0,
        5e-6 if is_longest_on_gpu else GRADIENT,
    )
