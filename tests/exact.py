# Problems whose loss is of a given size, from 1e-6 to 1e6, with their float64 losses
# and gradients: for the tests of exactness and for the table in docs/numerics.md.

from math import fsum

import mlx.core as mx
import numpy as np
import reference
from problems import Problem, random_problem, to_numpy

# The loss is within one of these of float64 for the same input.
RELATIVE, ABSOLUTE = 1e-6, 1e-9
# The gradient's: 16 units of rounding of what a frame has besides its greatest class;
# below the second a sum of exponentials has no digits.
GRADIENT_RELATIVE, GRADIENT_ABSOLUTE = 2**-20, 1e-12


def one_label(T, eps, rest=-20.0):
    """Log-probabilities of -eps for the right class in each frame, a label in one."""
    scores = np.full((T, 1, 3), rest)
    scores[:, 0, 0] = -eps
    scores[T // 2, 0] = [rest, -eps, rest]
    return Problem(scores, np.array([[1]]), [T], [1], with_logits=False)


def confident(
    rng, T, C, S, margin, with_logits, spread=1.0, undecided=None, blanks=True
):
    """A model that is right in each frame by `margin` nats.

    If undecided, the frame before each label is its or the blank's, with a score that
    is less than the blank's by so many nats. Without blanks, each label lasts until the
    next.
    """
    problem = random_problem(
        rng, T=T, N=1, C=C, S=S, ragged=False, spread=spread, with_logits=True
    )
    if S > 0:
        problem.targets[0] = 1 + np.arange(S) % (C - 1)
    spoken, between = np.zeros(T, int), []
    for s, label in enumerate(problem.targets[0]):
        first = (2 * s + 1) * T // (2 * S + 1)
        spoken[first : max(first + 1, (2 * s + 2) * T // (2 * S + 1) - 1)] = label
        between.append((first - 1, label))
    if not blanks:
        spoken = problem.targets[0][np.arange(T) * S // T]
    problem.inputs[range(T), 0, spoken] += margin
    for t, label in between if undecided is not None else []:
        problem.inputs[t, 0, label] = problem.inputs[t, 0, 0] - undecided
    if not with_logits:
        problem.inputs = reference.log_softmax(problem.inputs)
        problem.with_logits = False
    return problem


def exact_loss(problem, dtype=mx.float32):
    """The loss (N,) in float64 of the inputs as the dtype holds them.

    For models that are right: alpha is divided by its sum in every frame, so that it
    has errors of 1e-16 where sums of log-probabilities have those of their size.
    """
    inputs = to_numpy(mx.array(problem.inputs, dtype))
    lengths = zip(problem.input_lengths, problem.target_lengths, strict=True)
    return np.array(
        [
            loss_of_sequence(
                inputs[:T, n],
                np.asarray(problem.targets[n][:S]),
                problem.blank,
                problem.with_logits,
            )
            for n, (T, S) in enumerate(lengths)
        ]
    )


def loss_of_sequence(scores, labels, blank, with_logits):
    states = np.full(2 * len(labels) + 1, blank)
    states[1::2] = labels
    may_skip = np.zeros(len(states), bool)
    may_skip[3::2] = states[3::2] != states[1:-2:2]
    greatest = scores.max(axis=1, keepdims=True)
    if with_logits:
        logs = list(-np.log(np.exp(scores - greatest).sum(axis=1)))
    else:
        logs = list(greatest[:, 0])
    emissions = np.exp(scores[:, states] - greatest)
    alpha = np.zeros(len(states))
    for t, p in enumerate(emissions):
        arrived = alpha.copy()
        arrived[1:] += alpha[:-1]
        arrived[2:] += np.where(may_skip[2:], alpha[:-2], 0)
        arrived[:2] = 1 if t == 0 else arrived[:2]
        alpha = arrived * p
        total = alpha.sum()
        assert total > 1e-100  # far from where states would be lost
        logs.append(np.log(total))
        alpha /= total
    logs.append(np.log(alpha[-2:].sum()))
    return -fsum(logs)


def allowed(expected, relative=RELATIVE, absolute=ABSOLUTE):
    return np.maximum(relative * np.abs(expected), absolute)


def exact_gradient(problem, dtype=mx.float32):
    """The gradient (T, N, C) in float64 of the inputs as the dtype holds them, and how
    much each frame (T, N) has besides its greatest class: of softmax and gamma
    together, at most 1, or at most exp of a score above 0.

    Where a class has nearly all of both, their difference is that of what the others
    have: float64 would lose it near 1 as well.
    """
    inputs = to_numpy(mx.array(problem.inputs, dtype))
    gradient, besides = np.zeros_like(inputs), np.ones(inputs.shape[:2])
    lengths = zip(problem.input_lengths, problem.target_lengths, strict=True)
    for n, (T, S) in enumerate(lengths):
        scores, frames = inputs[:T, n], np.arange(T)
        log_probs = reference.log_softmax(scores) if problem.with_logits else scores
        _, gamma = reference.ctc(log_probs, problem.targets[n][:S], problem.blank)
        softmax, greatest = np.exp(log_probs), log_probs.argmax(axis=1)
        rows = softmax - gamma
        is_likely = (softmax[frames, greatest] > 0.5) & (gamma[frames, greatest] > 0.5)
        rest = -np.expm1(log_probs[frames, greatest])
        for values in (softmax, gamma):
            values[frames, greatest] = 0
        if problem.with_logits:
            rest = softmax.sum(axis=1)
        others = gamma.sum(axis=1)
        t = frames[is_likely]
        rows[t, greatest[t]] = (others - rest)[t]
        gradient[:T, n] = rows
        besides[:T, n] = np.maximum(1, np.exp(log_probs).max(axis=1))
        besides[t, n] = np.minimum(np.abs(rest) + others, besides[:T, n])[t]
    return gradient, besides


def allowed_of_gradient(besides, on_a_gpu, factor=1):
    """What docs/numerics.md promises of a frame, times `factor`."""
    allowed = GRADIENT_RELATIVE * besides
    if on_a_gpu:
        allowed = np.minimum(4 * allowed, 1e-6)
    return factor * allowed + GRADIENT_ABSOLUTE


def assert_gradient_is_exact(gradient, problem, on_a_gpu, factor=1):
    expected, besides = exact_gradient(problem)
    allowed = allowed_of_gradient(besides, on_a_gpu, factor)
    error = np.abs(gradient - expected).max(axis=2)
    assert (error <= allowed).all(), (error / allowed).max()
