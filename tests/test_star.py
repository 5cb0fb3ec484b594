# The star: a label that stands for any text.

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import reference
from problems import random_problem, to_numpy

from mlx_ctc import ctc_loss, forced_align, merge_tokens

pytestmark = pytest.mark.usefixtures("device")

C = 3
STAR = C


def with_column(log_probs, score):
    """log_probs (..., C) with the star's score as class C."""
    column = np.full((*log_probs.shape[:-1], 1), score)
    return np.concatenate([log_probs, column], axis=-1)


@pytest.mark.parametrize(
    "labels",
    [
        [STAR],
        [STAR, 1],
        [1, STAR],
        [STAR, 1, STAR],
        [1, STAR, 1],
        [1, STAR, 2],
        [1, 2, STAR, 2, 1],
        [STAR, STAR],
        [1, 2],
    ],
)
@pytest.mark.parametrize("blank", [0, -1])
@pytest.mark.parametrize("star", [0, -0.5, -3.0])
def test_best_of_all_paths(rng, with_logits, star, blank, labels):
    if blank == -1:
        labels = [label - (label < STAR) for label in labels]
    for _ in range(3):
        inputs = np.float32(2 * rng.normal(size=(6, C)))
        log_probs = reference.log_softmax(inputs.astype(float))
        expected, score = reference.best_alignment_by_enumeration(
            with_column(log_probs, star), labels, blank % C
        )
        inputs = inputs if with_logits else log_probs
        options = {"blank": blank, "star": star, "with_logits": with_logits}
        path, scores = forced_align(
            mx.array(inputs, mx.float32), labels, 6, len(labels), **options
        )
        assert path.tolist() == list(expected)
        assert scores.sum().item() == pytest.approx(score, rel=1e-5, abs=1e-6)
        of_star = np.array(scores)[np.array(path) == STAR]
        np.testing.assert_array_equal(of_star, np.float32(star))


def test_free_star_is_torchaudios_column_of_zeros(rng):
    problem = random_problem(rng, N=4, with_logits=False)
    problem.targets[:, 2] = problem.inputs.shape[2]
    inputs, *rest = problem.arrays()
    ours = forced_align(inputs, *rest, star=0.0)
    zeros = mx.zeros((*inputs.shape[:2], 1))
    theirs = forced_align(mx.concatenate([inputs, zeros], axis=2), *rest)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def said(labels, frames, confidence, rng):
    """Log-probabilities (T, 1, 12) of each label for 3 frames, then 3 blanks.

    Every frame's class has about the probability `confidence`, the others the rest.
    """
    path = np.repeat([c for label in labels for c in (label, 0)], 3)
    assert len(path) == frames
    noise = rng.uniform(0.5, 1.5, size=(frames, 12))
    noise[np.arange(frames), path] = 0
    probs = (1 - confidence) * noise / noise.sum(axis=1, keepdims=True)
    probs[np.arange(frames), path] = confidence
    return mx.array(np.log(probs)[:, None], mx.float32), path


TEXT = [4, 5, 6, 7, 8, 9]
PARTS = {
    "begin": [12, 7, 8, 9],
    "end": [4, 5, 6, 12],
    "both ends": [12, 6, 7, 12],
    "inside": [4, 5, 12, 8, 9],
}


@pytest.mark.parametrize("target", PARTS.values(), ids=PARTS)
def test_a_penalty_leaves_the_known_text_its_frames(rng, target):
    log_probs, whole = said(TEXT, 36, 0.6, rng)
    path, _ = forced_align(log_probs, [target], 36, len(target), star=-1.5)
    path = np.array(path[0])
    known = np.isin(whole, target) & (whole > 0)
    np.testing.assert_array_equal(path[known], whole[known])
    assert (path[~np.isin(whole, [0, *target])] == 12).all()


@pytest.mark.parametrize("target", PARTS.values(), ids=PARTS)
def test_a_free_star_takes_all_but_one_frame_of_its_neighbours(rng, target):
    log_probs, _ = said(TEXT, 36, 0.6, rng)
    path, _ = forced_align(log_probs, [target], 36, len(target), star=0.0)
    lengths = {span.token: len(span) for span in merge_tokens(path[0], path[0])}
    at = target.index(12)
    for neighbour in target[max(at - 1, 0) : at] + target[at + 1 : at + 2]:
        assert lengths[neighbour] == 1


def test_a_free_star_squeezes_the_text_on_flat_scores():
    path, _ = forced_align(mx.full((9, 4), -np.log(4)), [4, 1, 2, 4], 9, 4, star=0.0)
    counts = np.bincount(path.tolist(), minlength=5)
    assert counts.tolist() == [0, 1, 1, 0, 7]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_number_makes_its_item_nan(rng, value, with_logits):
    problem = random_problem(rng, with_logits=with_logits, ragged=False)
    problem.inputs[4, 2, problem.targets[2, 3]] = value
    problem.targets[:, 4] = 9
    path, scores = forced_align(*problem.arrays(), star=-1.0, **problem.options)
    bad = np.isnan(scores).all(axis=1)
    assert bad.tolist() == [n == 2 for n in range(6)]
    np.testing.assert_array_equal(path[2], problem.blank)


def test_every_dtype(rng, dtype, with_logits):
    problem = random_problem(rng, N=3, ragged=False, with_logits=with_logits)
    problem.targets[:, 4] = 9
    path, scores = forced_align(*problem.arrays(dtype), star=-0.7, **problem.options)
    assert scores.dtype == (mx.float64 if dtype == mx.float64 else mx.float32)
    inputs = to_numpy(mx.array(problem.inputs, dtype))
    inputs = reference.log_softmax(inputs) if with_logits else inputs
    for n in range(3):
        x = with_column(inputs[:, n], -0.7)
        expected, _ = reference.best_alignment(x, problem.targets[n])
        np.testing.assert_array_equal(path[n], expected)
        tolerance = 1e-14 if dtype == mx.float64 else 1e-6
        found = x[np.arange(30), expected]
        np.testing.assert_allclose(scores[n], found, tolerance, tolerance)


@pytest.mark.parametrize(("T", "N"), [(0, 2), (4, 0), (0, 0)])
def test_no_frames_or_no_sequences(with_logits, T, N):
    none = mx.zeros((N,), mx.int32)
    inputs, targets = mx.zeros((T, N, C)), mx.full((N, 1), STAR)
    path, scores = forced_align(
        inputs, targets, none, none, star=-1.0, with_logits=with_logits
    )
    assert path.shape == scores.shape == (N, T)


def test_batch_first_and_padded_without_lengths(rng):
    log_probs = reference.log_softmax(rng.normal(size=(8, 2, C)))
    log_probs = mx.array(log_probs, mx.float32)
    expected = forced_align(log_probs, [[1, STAR], [STAR, 0]], 8, [2, 1], 0, star=-0.5)
    batch_first = log_probs.swapaxes(0, 1)
    for targets in (
        [[1, STAR], [STAR]],
        [[1, STAR], [STAR, -100]],
        mx.array([[1, STAR], [STAR, -100]]) + 0,  # not known at the call
    ):
        found = forced_align(batch_first, targets, star=-0.5, batch_first=True)
        for array, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(array, other)


def test_in_a_compiled_function_and_vmap(rng):
    problem = random_problem(rng, N=3)
    problem.targets[:, 1] = 9
    arrays = problem.arrays()

    def align(*arrays):
        return forced_align(*arrays, star=-1.0, **problem.options)

    expected = [np.array(a) for a in align(*arrays)]
    for a, b in zip(mx.compile(align)(*arrays), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(
        mx.vmap(align, in_axes=(1, 0, 0, 0))(*arrays), expected, strict=True
    ):
        np.testing.assert_array_equal(a, b)


class TestErrors:
    @pytest.mark.parametrize(
        "star",
        [0.5, np.nan, np.inf, -np.inf, -(10**400), True, "0"],
        ids=lambda star: repr(star)[:9],
    )
    def test_other_scores_are_refused(self, star):
        says = (
            r"^\[forced_align\] Expected star as a finite number of at most 0 but got"
        )
        with pytest.raises(ValueError, match=says):
            forced_align(mx.zeros((4, 3)), [1, 3], 4, 2, star=star)

    def test_the_star_is_the_last_label(self):
        with pytest.raises(ValueError, match=r"targets\[0, 1\] in \[0, 4\) but got 4"):
            forced_align(mx.zeros((4, 3)), [1, 4], 4, 2, star=0.0)

    def test_without_a_star_its_label_is_refused(self):
        with pytest.raises(ValueError, match=r"targets\[0, 1\] in \[0, 3\) but got 3"):
            forced_align(mx.zeros((4, 3)), [1, 3], 4, 2)

    def test_a_star_takes_a_frame(self):
        with pytest.raises(ValueError, match=r"input_lengths\[0\] of 3 or more .* 2"):
            forced_align(mx.zeros((2, 3)), [1, 3, 1], 2, 3, star=0.0)


class TestLoss:
    """A column of zeros makes class C a star for the loss too."""

    @pytest.mark.parametrize("labels", [[STAR, 1], [1, STAR, 2], [STAR, 2, STAR]])
    def test_value_and_gradient(self, rng, labels):
        logits = rng.normal(size=(5, 1, C))

        def loss(logits):
            log_probs = nn.log_softmax(logits, axis=-1)
            scores = mx.concatenate([log_probs, mx.zeros((5, 1, 1))], axis=-1)
            return ctc_loss(scores, [labels], 5, len(labels), reduction="sum")

        def expected(logits):
            x = with_column(reference.log_softmax(logits[:, 0]), 0.0)
            return reference.ctc_by_enumeration(x, labels)[0]

        value, gradient = mx.value_and_grad(loss)(mx.array(logits, mx.float32))
        assert value.item() == pytest.approx(expected(logits), rel=1e-5)
        for at in np.ndindex(logits.shape):
            step = np.zeros_like(logits)
            step[at] = 1e-4
            slope = (expected(logits + step) - expected(logits - step)) / 2e-4
            assert gradient[at].item() == pytest.approx(slope, abs=1e-5)
