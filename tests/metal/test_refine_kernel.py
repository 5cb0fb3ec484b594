# The loss of confident sequences on the emulator, as near float64 as the CPU's:
# tests/test_exact.py has the same bounds for whole calls.

from dataclasses import replace

import ctc_on_emulator
import exact
import mlx.core as mx
import numpy as np
import pytest
import reference
from problems import Problem
from static_check import problems as problems_of_text


def check(emulator, problem, dtype=mx.float32, **options):
    expected = exact.exact_loss(problem, dtype)
    run = ctc_on_emulator.run(emulator, problem, dtype, "loss", **options)
    loss = run.arrays["loss"].numpy().astype(float)
    error = np.abs(loss - expected)
    assert (error <= exact.allowed(expected)).all(), (loss, expected, error)
    return run


@pytest.mark.parametrize("eps", [1e-4, 1e-7, 1e-8])
def test_one_label_among_certain_blanks(emulator, eps):
    check(emulator, exact.one_label(1000, eps))


@pytest.mark.parametrize("margin", [4, 8, 12, 20])
@pytest.mark.parametrize("undecided", [None, 0, 3])
def test_confident_model(emulator, rng, margin, undecided, with_logits):
    problem = exact.confident(
        rng, 300, 32, 40, margin, with_logits, undecided=undecided
    )
    run = check(emulator, problem)
    for text in run.texts():
        assert problems_of_text(text) == []


def many_classes(rng, T=90, margin=20, undecided=3):
    return exact.confident(rng, T, 300, 40, margin, True, undecided=undecided)


def equal_classes(rng, others=0.2, greatest=17.6):
    """All classes but one have a score whose distance to it has digits to lose."""
    scores = np.full((90, 1, 3000), others)
    scores[:, :, 7] = greatest
    return Problem(scores, np.array([[7]]), [90], [1], with_logits=True)


# One launch, and two for more frames.
@pytest.mark.parametrize("T", [90, 230])
@pytest.mark.parametrize("undecided", [None, 0, 3])
@pytest.mark.parametrize("margin", [9, 20])
def test_many_classes(emulator, rng, T, margin, undecided):
    run = check(emulator, many_classes(rng, T, margin, undecided))
    names = [launch.name for launch in run.launches]
    assert ("ctc_factors" in names) == (T > 200)
    for text in run.texts():
        assert problems_of_text(text) == []


@pytest.mark.parametrize(("others", "greatest"), [(0.2, 17.6), (-1.3, 16.1)])
def test_equal_classes(emulator, rng, others, greatest):
    check(emulator, equal_classes(rng, others, greatest))


# What makes the loss of many classes exact: (problem, text of a header, replacement).
FAULTS = {
    "frames are not summed again": (many_classes, "rest > 0.5f || of_paths", "0.0f"),
    "labels are no alternatives": (
        many_classes,
        "of_paths += exp_of_other(score, greatest);",
        "",
    ),
    "sums in floats": (many_classes, "more.low + sum.low", "0.0f"),
    "exponent as it is rounded": (
        equal_classes,
        "metal::fma(term, error, term)",
        "term",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_takes_digits(emulator, rng, fault):
    make, old, new = FAULTS[fault]

    def edit(launch):
        return replace(launch, header=launch.header.replace(old, new))

    problem = make(rng)
    run = check(emulator, problem)
    assert any(old in launch.header for launch in run.launches)
    with pytest.raises(AssertionError):
        check(emulator, problem, edit=edit)


def test_thousands_of_frames(emulator, rng, with_logits):
    problem = exact.confident(rng, 3000, 32, 30, 16, with_logits, undecided=0)
    check(emulator, problem)


def test_label_equal_to_the_blank(emulator, with_logits):
    lengths, target_lengths = np.array([2, 2]), np.array([0, 1])
    zeros = np.zeros((2, 2, 1)), np.zeros((2, 1), int)
    check(emulator, Problem(*zeros, lengths, target_lengths, 0, with_logits))


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_each_dtype(emulator, rng, dtype, with_logits):
    check(emulator, exact.confident(rng, 200, 70, 20, 8, with_logits), dtype)


@pytest.mark.parametrize(("T", "S"), [(1, 0), (40, 0), (5, 2), (70, 32), (150, 65)])
def test_targets_of_every_size(emulator, rng, T, S, with_logits):
    check(emulator, exact.confident(rng, T, 9, S, 12, with_logits))


def test_segments_of_eight_frames(emulator, rng, with_logits):
    problem = exact.confident(rng, 400, 20, 140, 14, with_logits, undecided=0)
    check(emulator, problem)


def test_repeated_labels_and_another_blank(emulator, rng, with_logits):
    problem = exact.confident(rng, 200, 9, 33, 10, with_logits, undecided=0)
    problem.targets = (problem.targets + 5) % 9  # the blank becomes class 5
    problem.inputs = np.roll(problem.inputs, 5, axis=2)
    problem.blank = 5
    problem.targets[0, 10:20] = problem.targets[0, 10]
    check(emulator, problem)


def test_masked_classes(emulator, rng, with_logits):
    problem = exact.confident(rng, 200, 32, 40, 12, with_logits)
    masked = rng.random(problem.inputs.shape) < 0.2
    masked &= problem.inputs < problem.inputs.max(axis=2, keepdims=True)
    problem.inputs[masked] = -np.inf
    check(emulator, problem)


@pytest.mark.parametrize("offset", [-100, 1e5])
def test_logits_may_lie_anywhere(emulator, rng, offset):
    problem = exact.confident(rng, 200, 32, 20, 14, with_logits=True)
    problem.inputs += offset
    check(emulator, problem)


def test_sequences_of_a_batch(emulator, rng, with_logits):
    # Confident, shorter, at a loss, without a path, and invalid ones.
    problem = exact.confident(rng, 90, 9, 20, 12, with_logits)
    problem.inputs = np.repeat(problem.inputs, 6, axis=1)
    problem.targets = np.repeat(problem.targets, 6, axis=0)
    problem.input_lengths = np.array([90, 60, 90, 10, 90, 91])
    problem.target_lengths = np.array([20, 13, 20, 20, 20, 20])
    problem.inputs[:, 2] = reference.log_softmax(rng.normal(size=(90, 9)))
    problem.inputs[40, 4, problem.targets[4, 8]] = np.nan
    first = replace(
        problem,
        inputs=problem.inputs[:, :2],
        targets=problem.targets[:2],
        input_lengths=problem.input_lengths[:2],
        target_lengths=problem.target_lengths[:2],
    )
    expected = exact.exact_loss(first)
    for zero_infinity in False, True:
        run = ctc_on_emulator.run(
            emulator, problem, op="loss", zero_infinity=zero_infinity
        )
        loss = run.arrays["loss"].numpy()
        error = np.abs(loss[:2] - expected)
        assert (error <= exact.allowed(expected)).all()
        assert loss[2] > 90 / 2
        assert loss[3] == (0 if zero_infinity else np.inf)
        assert np.isnan(loss[4:]).all()
