# The CTC loss and its gradient in float64 NumPy, written for clarity.
#
# Two implementations of Graves et al. 2006: the forward-backward recursion in the log
# domain (section 4.1), and the definition itself (equation 3) by enumeration of paths.
# Where all probabilities are equal, paths are only counted, at any size.
# T frames, C classes, S labels in a target, L = 2S + 1 states; t, c, s their indices.

from itertools import groupby, product
from math import lgamma

import numpy as np


def log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def arrivals(log_probs, labels, blank):
    """Log-sum over the paths that arrive at each state, its own emission excluded.

    Returns the arrivals (T, L) and the emissions log p(t, s) (T, L); their sum is
    log alpha of equation 6.
    """
    T, L = len(log_probs), 2 * len(labels) + 1
    states = np.full(L, blank)
    states[1::2] = labels
    # A path may skip the blank between two labels that differ.
    log_skip = np.full(L, -np.inf)
    log_skip[3::2][states[3::2] != states[1:-2:2]] = 0

    emissions = log_probs[:, states]
    arrive = np.full((T, L), -np.inf)
    arrive[0, :2] = 0
    for t in range(1, T):
        stay = arrive[t - 1] + emissions[t - 1]
        arrive[t] = stay
        arrive[t, 1:] = np.logaddexp(arrive[t, 1:], stay[:-1])
        arrive[t, 2:] = np.logaddexp(arrive[t, 2:], stay[:-2] + log_skip[2:])
    return arrive, emissions


def occupation(log_probs, labels, blank=0):
    """Log Z of one sequence of log-probabilities (T, C), and gamma (T, L).

    gamma(t, s) is the posterior probability that frame t is in state s: zero everywhere
    when no path has any probability.
    """
    before, emissions = arrivals(log_probs, labels, blank)
    # Read from the end, a sentence is the reversed target in reversed frames.
    after = arrivals(log_probs[::-1], labels[::-1], blank)[0][::-1, ::-1]
    log_z = np.logaddexp.reduce((before + emissions)[-1, -2:])
    if log_z == -np.inf:
        return log_z, np.zeros_like(emissions)
    return log_z, np.exp(before + emissions + after - log_z)


def ctc(log_probs, labels, blank=0):
    """Loss of one sequence of log-probabilities (T, C), and gamma of classes (T, C)."""
    log_probs = np.asarray(log_probs, np.float64)
    labels = np.asarray(labels, np.int64)
    gamma = np.zeros_like(log_probs)
    if len(log_probs) == 0:
        return (0.0 if len(labels) == 0 else np.inf), gamma
    log_z, occupied = occupation(log_probs, labels, blank)
    gamma[:, blank] = occupied[:, ::2].sum(axis=1)
    np.add.at(gamma, (slice(None), labels), occupied[:, 1::2])
    return -log_z, gamma


def ctc_loss(
    inputs,
    targets,
    input_lengths,
    target_lengths,
    blank=0,
    with_logits=False,
    normalized=True,
):
    """Losses (N,) and the gradient of their sum (T, N, C) for padded targets."""
    inputs = np.asarray(inputs, np.float64)
    losses, gradient = np.zeros(inputs.shape[1]), np.zeros_like(inputs)
    for n, (T, S) in enumerate(zip(input_lengths, target_lengths, strict=True)):
        log_probs = inputs[:T, n]
        if with_logits:
            log_probs = log_softmax(log_probs)
        losses[n], gamma = ctc(log_probs, targets[n][:S], blank)
        if np.isfinite(losses[n]):
            gradient[:T, n] = (np.exp(log_probs) if normalized else 0) - gamma
    return losses, gradient


def reduce(losses, target_lengths, reduction, zero_infinity=False):
    if zero_infinity:
        losses = np.where(losses == np.inf, 0, losses)
    if reduction == "mean":
        return np.mean(losses / np.maximum(target_lengths, 1))
    if reduction == "mean_batch":
        return np.mean(losses)
    if reduction == "mean_volume":
        return losses.sum() / max(np.sum(target_lengths), 1)
    return losses.sum() if reduction == "sum" else losses


def collapse(path, blank):
    """The map B of the paper: merge repeats, then drop blanks."""
    return [c for c, _ in groupby(path) if c != blank]


def ctc_by_enumeration(log_probs, labels, blank=0):
    """The same as `ctc`, by its definition: the sum over all C^T paths."""
    T, C = log_probs.shape
    z, gamma = 0.0, np.zeros((T, C))
    frames = np.arange(T)
    for path in product(range(C), repeat=T):
        if collapse(path, blank) == list(labels):
            p = np.exp(log_probs[frames, path].sum())
            z += p
            gamma[frames, path] += p
    return (-np.log(z), gamma / z) if z > 0 else (np.inf, gamma)


def log_comb(n, k):
    """Log of the binomials of n over k, which are zero where k > n."""
    fits = n >= k
    n = np.where(fits, n, k)
    log_factorial = np.vectorize(lambda n: lgamma(n + 1))
    log_value = log_factorial(n) - log_factorial(k) - log_factorial(n - k)
    return np.where(fits, log_value, -np.inf)


def log_paths(T, S):
    """Log of how many paths T frames have for S labels, none like the one before."""
    return log_comb(T + S, 2 * S)


def share_of_paths(T, S, t):
    """The part of those paths (frames, S) that are in each label at the frames t."""
    t, i = np.reshape(t, (-1, 1)), np.arange(S)
    log_before = log_comb(t + 1 + i, 2 * i + 1)
    log_after = log_comb(T - t + S - 1 - i, 2 * (S - i) - 1)
    return np.exp(log_before + log_after - log_paths(T, S))


def best_alignment(log_probs, labels, blank=0):
    """The best path (T,) of one sequence (T, C) and its score, by Viterbi.

    Of equally good paths the one that, read from its end, stays rather than steps and
    steps rather than jumps.
    """
    T, L = len(log_probs), 2 * len(labels) + 1
    states = np.full(L, blank)
    states[1::2] = labels
    best = np.full(L, -np.inf)
    best[:2] = log_probs[0, states[:2]]
    moves = np.zeros((T, L), int)
    for t in range(1, T):
        came_from = np.full((3, L), -np.inf)
        came_from[0] = best
        came_from[1, 1:] = best[:-1]
        can_jump = np.zeros(L, bool)
        can_jump[3::2] = states[3::2] != states[1:-2:2]
        came_from[2, 2:] = np.where(can_jump[2:], best[:-2], -np.inf)
        moves[t] = came_from.argmax(axis=0)  # the first of equals
        best = came_from.max(axis=0) + log_probs[t, states]
    s = L - 1 if L == 1 or best[-1] > best[-2] else L - 2
    score = best[s]
    path = np.zeros(T, int)
    for t in reversed(range(T)):
        path[t] = states[s]
        s -= moves[t, s]
    return path, score


def best_alignment_by_enumeration(log_probs, labels, blank=0):
    """The same as `best_alignment`, by looking at all C^T paths."""
    T, C = log_probs.shape
    candidates = []
    for path in product(range(C), repeat=T):
        if collapse(path, blank) == list(labels):
            score = log_probs[np.arange(T), path].sum()
            candidates.append((-score, moves_from_the_end(path, blank), path))
    score, _, path = min(candidates, default=(np.inf, None, None))
    return path, -score


def moves_from_the_end(path, blank):
    """Where a path ends, then how far it moved into each frame from the last on."""
    state, states = 0, []
    for c, before in zip(path, (blank, *path), strict=False):
        if c == blank:
            state += state % 2
        elif c != before:
            state += 1 + state % 2
        states.append(state)
    return (states[-1], *np.diff(states)[::-1]) if states else ()
