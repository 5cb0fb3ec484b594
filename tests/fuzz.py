"""Random calls, valid and invalid, against an independent reference in float64.

    python tests/fuzz.py --seconds 3600
    python tests/fuzz.py --calls 1000000 --workers 2
    python tests/fuzz.py --seed 12345      # one seed again, in this process

A seed determines a problem, and the calls that are made of it: each in another form
(frames or batch first; padded, ragged, concatenated or unbatched; with lengths, masks
or neither; list, tuple, int, NumPy array, evaluated or unevaluated mx.array; any
integer type; any strides) and most with nothing wrong. A call
has to give the reference's result, or to raise a ValueError that names what is wrong,
or to give NaN for the sequences that it is wrong in.

The calls run in worker processes, so that one that crashes or hangs is reported with
its seed too.
"""

import argparse
import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import pairwise, product

import mlx.core as mx
import numpy as np
import reference
from problems import TOLERANCE, to_numpy

from mlx_ctc import (
    _ext,
    beam_search_decode,
    ctc_loss,
    ctc_posteriors,
    forced_align,
    greedy_decode,
    nn,
)
from mlx_ctc.functional import REDUCTIONS

HANG = 60  # seconds without progress
DTYPES = [mx.float32, *TOLERANCE]
NUMPY_INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4"]
MLX_INTEGERS = [
    mx.int8,
    mx.int16,
    mx.int32,
    mx.int64,
    mx.uint8,
    mx.uint16,
    mx.uint32,
    mx.uint64,
]


# --- Problems -------------------------------------------------------------------------


@dataclass
class Problem:
    scores: np.ndarray  # (T, N, C), as the dtype holds them
    dtype: mx.Dtype
    targets: np.ndarray  # (N, S)
    input_lengths: np.ndarray
    target_lengths: np.ndarray
    blank: int
    with_logits: bool
    normalized: bool
    nan: np.ndarray  # (N,) whether a used frame has nothing but NaN or +inf
    star: float | None = None  # the log-probability of label C
    losses: np.ndarray = field(init=False)
    gammas: list = field(init=False)  # of classes (T_n, C), for each sequence

    def __post_init__(self):
        self.losses, self.gammas = np.zeros(self.N), []
        for n in range(self.N):
            log_probs = self.log_probs(n)
            self.losses[n], gamma = (
                (np.nan, np.full_like(log_probs, np.nan))
                if self.nan[n]
                else reference.ctc(log_probs, self.labels(n), self.blank)
            )
            self.gammas.append(gamma)

    @property
    def T(self):
        return self.scores.shape[0]

    @property
    def N(self):
        return self.scores.shape[1]

    @property
    def C(self):
        return self.scores.shape[2]

    @property
    def tolerance(self):
        return TOLERANCE[self.dtype]

    def labels(self, n):
        return self.targets[n, : self.target_lengths[n]]

    def log_probs(self, n):
        scores = self.scores[: self.input_lengths[n], n]
        log_probs = reference.log_softmax(scores) if self.with_logits else scores
        if self.star is None:
            return log_probs
        return np.pad(log_probs, ((0, 0), (0, 1)), constant_values=self.star)

    def has_path(self, n):
        """Whether the target has an alignment of a probability above 0."""
        return np.isfinite(self.losses[n])

    def fits(self, n):
        """Whether the sequence has as many frames as the target needs."""
        labels = self.labels(n)
        repeats = np.count_nonzero(labels[1:] == labels[:-1])
        return len(labels) + repeats <= self.input_lengths[n]


def random_problem(rng):
    large = rng.random() < 0.02
    T, N = rng.integers(0, 80 if large else 14), rng.integers(0, 5)
    C = rng.integers(1, 130 if large else 8)
    S = rng.integers(0, 41 if large else 6) if C > 1 else 0
    with_logits = rng.random() < 0.5
    dtype = DTYPES[rng.integers(len(DTYPES))]
    blank = rng.integers(C)
    scores = rng.choice([0.5, 3]) * rng.normal(size=(T, N, C))
    normalized = with_logits or rng.random() < 0.6
    if not normalized:
        scores = -np.abs(scores)  # beam_search_decode takes no scores above 0
    elif not with_logits:
        scores = reference.log_softmax(scores)
    if rng.random() < 0.2:
        masked = rng.random(scores.shape) < 0.2
        masked[..., blank] = False
        scores[masked] = -np.inf
    targets = rng.integers(0, max(C - 1, 1), (N, S))
    targets += targets >= blank
    input_lengths, target_lengths = rng.integers(0, T + 1, N), rng.integers(0, S + 1, N)
    if rng.random() < 0.7:  # most targets fit
        input_lengths[:] = np.maximum(input_lengths, min(T, 2 * S))
    nan = np.zeros(N, bool)
    if N > 0 and rng.random() < 0.1:
        n = rng.integers(N)
        if input_lengths[n] > 0:
            scores[rng.integers(input_lengths[n]), n] = rng.choice([np.nan, np.inf])
            nan[n] = True
    for n in range(N):  # what is not used may be anything
        if rng.random() < 0.3:
            scores[input_lengths[n] :, n] = rng.choice([np.nan, np.inf, -np.inf, 7.0])
            targets[n, target_lengths[n] :] = rng.choice([-1, 99, blank])
    scores = to_numpy(mx.array(scores, dtype))
    return Problem(
        scores,
        dtype,
        targets,
        input_lengths,
        target_lengths,
        int(blank),
        with_logits,
        normalized,
        nan,
    )


def starred(rng, problem):
    """The problem with the star in place of some labels."""
    targets = problem.targets.copy()
    targets[rng.random(targets.shape) < 0.4] = problem.C
    star = rng.choice([0.0, -0.5, -3.0, np.round(-rng.exponential(), 3)])
    return replace(problem, targets=targets, star=float(star))


# --- Forms ----------------------------------------------------------------------------


@dataclass
class Integers:
    """Targets or lengths in some container, and whether a call can know them."""

    values: object
    known: bool
    form: str


def integers(rng, values, kinds="list numpy mlx lazy"):
    values = np.asarray(values)
    form = rng.choice(kinds.split())
    if form == "int" and (values.size == 0 or (values != values.flat[0]).any()):
        form = "list"
    if form == "list":
        return Integers(values.tolist(), True, form)
    if form == "tuple":
        return Integers(tuple(values.tolist()), True, form)
    if form == "int":
        return Integers(int(values.flat[0]), True, form)
    numpy = values.astype(fitting(rng, values, NUMPY_INTEGERS))
    if form == "numpy":
        return Integers(strided(rng, numpy), True, form)
    array = mx.array(values, fitting(rng, values, MLX_INTEGERS))
    if rng.random() < 0.3 and array.ndim == 2:
        array = mx.array(values.T, array.dtype).T
    if form == "lazy":
        return Integers(array + 0, values.size == 0, form)
    mx.eval(array)
    return Integers(array, _ext.is_known(array), form)


def mask(rng, lengths, width, unbatched, spoiled):
    """Lengths as a mask; if `spoiled` names a sequence, its row is none."""
    values = (np.arange(width) < np.reshape(lengths, (-1, 1))).astype(int)
    if spoiled is not None:
        row = values[spoiled]
        if width > 1 and rng.random() < 0.7:
            row[rng.integers(width - 1)], row[-1] = 0, 1
        else:
            row[rng.integers(width)] = rng.choice([-1, 2, 2**40])
    if unbatched:
        values = values[0]
    result = integers(rng, values)
    if values.min(initial=0) < 0 or values.max(initial=0) > 1 or rng.random() < 0.5:
        return result
    if result.form == "list":
        return Integers(values.astype(bool).tolist(), True, "boolean list")
    if result.form == "numpy":
        return Integers(result.values.astype(bool), True, "boolean numpy")
    array = result.values.astype(mx.bool_)
    if result.known:
        mx.eval(array)
    return Integers(array, result.known, f"boolean {result.form}")


def without_lengths(rng, problem, targets, unbatched):
    """Targets whose labels are followed by padding, or by nothing."""
    pairs = list(zip(targets, problem.target_lengths, strict=True))
    if rng.random() < 0.4 and not unbatched:
        return Integers([row[:size].tolist() for row, size in pairs], True, "ragged")
    padding = rng.choice([-1, -100, problem.blank])
    for row, size in pairs:
        row[size:] = padding
    return integers(rng, targets[0] if unbatched else targets)


def fitting(rng, values, dtypes):
    """One of the integer types that hold the values."""

    def holds(dtype):
        name = str(dtype).removeprefix("mlx.core.")
        bounds = np.iinfo(np.dtype(name))
        return values.size == 0 or (
            bounds.min <= values.min() and values.max() <= bounds.max
        )

    choices = [dtype for dtype in dtypes if holds(dtype)]
    return choices[rng.integers(len(choices))]


def strided(rng, array):
    """The same values, in memory of another shape."""
    kind = rng.integers(4)
    if kind == 0 or array.ndim == 0:
        return array
    if kind == 1:
        return np.asfortranarray(array)
    if kind == 2:
        return array[..., ::-1].copy()[..., ::-1]
    return np.repeat(array, 2, axis=-1)[..., ::2]


def scores_of(rng, problem):
    scores, dtype = problem.scores, problem.dtype
    if dtype in (mx.float32, mx.float16) and rng.random() < 0.2:
        numpy = np.float32 if dtype == mx.float32 else np.float16
        return strided(rng, scores.astype(numpy))
    kind = rng.integers(4)
    if kind == 0:
        return mx.array(scores.swapaxes(0, 1), dtype).swapaxes(0, 1)
    if kind == 1:
        return mx.array(np.repeat(scores, 2, axis=2), dtype)[..., ::2]
    if kind == 2:
        return mx.array(scores[::-1].copy(), dtype)[::-1]
    return mx.array(scores, dtype)


# --- Calls ----------------------------------------------------------------------------


@dataclass
class Call:
    problem: Problem
    scores: object
    targets: Integers
    input_lengths: Integers
    target_lengths: Integers
    blank: int
    unbatched: bool
    concatenated: bool
    batch_first: bool
    bad: np.ndarray  # (N,) sequences with a value out of range
    fault: str | None  # the argument that has it
    refused: list  # what a call that can know it has to name

    def arguments(self):
        return (
            self.scores,
            self.targets.values,
            self.input_lengths.values,
            self.target_lengths.values,
        )

    def options(self):
        return {
            "blank": self.blank,
            "with_logits": self.problem.with_logits,
            "batch_first": self.batch_first,
        }

    def loss_options(self):
        return {**self.options(), "normalized": self.problem.normalized}

    def align_options(self):
        return {**self.options(), "star": self.problem.star}

    def __str__(self):
        p = self.problem
        return (
            f"T={p.T} N={p.N} C={p.C} S={p.targets.shape[1]} {p.dtype} "
            f"blank={self.blank} logits={p.with_logits} normalized={p.normalized} "
            f"star={p.star} unbatched={self.unbatched} "
            f"concatenated={self.concatenated} batch_first={self.batch_first} "
            f"targets={self.targets} input_lengths={self.input_lengths} "
            f"target_lengths={self.target_lengths} bad={self.bad} "
            f"refused={self.refused}"
        )


def random_fault(rng, problem):
    """An argument, a sequence and a value that is out of range there, or nothing."""
    if problem.N == 0 or rng.random() > 0.3:
        return None, None, None
    fault = rng.choice(["targets", "input_lengths", "target_lengths"])
    n = rng.integers(problem.N)
    value = int(rng.choice([-1, -7, 120, 2**31 - 1, -(2**31), 2**31, 2**40]))
    if fault == "targets":
        if problem.target_lengths[n] == 0:
            return None, None, None
        value = value if value != 120 else problem.C + (problem.star is not None)
    return fault, n, value


def random_input_lengths(rng, problem, unbatched, spoiled, value):
    """In one of their forms, with a value out of range if a sequence is spoiled."""
    lengths = problem.input_lengths.copy()
    if spoiled is None and (lengths == problem.T).all() and rng.random() < 0.5:
        return Integers(None, True, "none")
    if rng.random() < 0.25 and (spoiled is None or problem.T > 1):
        return mask(rng, lengths, problem.T, unbatched, spoiled)
    if spoiled is not None:
        lengths[spoiled] = value
    kinds = "list tuple numpy mlx lazy" + (" int" if problem.N > 0 else "")
    return integers(rng, lengths, kinds)


def random_targets(rng, problem, unbatched, concatenated, fault, spoiled, value):
    """Targets and their lengths in one of their forms, with the fault if there is."""
    targets, lengths = problem.targets.copy(), problem.target_lengths.copy()
    S = targets.shape[1]
    if fault == "targets":
        targets[spoiled, rng.integers(lengths[spoiled])] = value
    spoiled_length = spoiled if fault == "target_lengths" else None
    form = "lengths"
    if problem.N > 0 and not concatenated:
        form = rng.choice(["lengths", "lengths", "mask", "none"])
    # A negative label would be the end of its target.
    if form == "none" and fault != "target_lengths" and not (value and value < 0):
        found = without_lengths(rng, problem, targets, unbatched)
        return found, Integers(None, found.known, "none")
    if form == "mask" and (fault != "target_lengths" or S > 1):
        rows = integers(rng, targets[0] if unbatched else targets)
        return rows, mask(rng, lengths, S, unbatched, spoiled_length)
    if concatenated:
        pairs = zip(targets, lengths, strict=True)
        targets = np.concatenate([r[:k] for r, k in pairs] or [np.zeros(0, int)])
    elif unbatched:
        targets = targets[0]
    if spoiled_length is not None:
        lengths[spoiled] = value
    kinds = "list tuple numpy mlx lazy" + (" int" if problem.N > 0 else "")
    return integers(rng, targets), integers(rng, lengths, kinds)


def random_call(rng, problem):
    """The problem in one of its forms, at times with a value out of range."""
    unbatched = problem.N == 1 and rng.random() < 0.3
    concatenated = not unbatched and rng.random() < 0.3
    batch_first = rng.random() < 0.3
    fault, n, value = random_fault(rng, problem)
    bad = np.zeros(problem.N, bool)
    if fault == "target_lengths" and concatenated:
        bad[:] = True
    elif fault:
        bad[n] = True
    spoiled = n if fault == "input_lengths" else None
    input_lengths = random_input_lengths(rng, problem, unbatched, spoiled, value)
    targets, target_lengths = random_targets(
        rng, problem, unbatched, concatenated, fault, n, value
    )
    known = {
        "targets": targets.known and target_lengths.known,
        "input_lengths": input_lengths.known,
        "target_lengths": target_lengths.known,
    }
    return Call(
        problem,
        in_layout(scores_of(rng, problem), unbatched, batch_first),
        targets,
        input_lengths,
        target_lengths,
        problem.blank - (problem.C if rng.random() < 0.3 else 0),
        unbatched,
        concatenated,
        batch_first,
        bad,
        fault,
        [fault] if fault and known[fault] else [],
    )


def in_layout(scores, unbatched, batch_first):
    """Scores (T, N, C) as a call takes them."""
    if unbatched:
        return scores[:, 0]
    return scores.swapaxes(0, 1) if batch_first else scores


def read(rng, array):
    """An array's values in float64, read in one of many ways."""
    kind = rng.integers(5)
    if array.dtype == mx.bfloat16:
        array = array.astype(mx.float32)
    if kind == 0:
        mx.async_eval(array)
    if kind == 1:
        values = np.array(array.tolist())
    elif kind == 2:
        values = np.array(memoryview(array))
    else:
        values = np.asarray(array) if kind == 3 else np.array(array)
    return values.astype(np.float64).reshape(array.shape)


def close(result, expected, absolute, relative):
    np.testing.assert_allclose(result, expected, relative, absolute)


def expected_losses(call):
    return np.where(call.bad, np.nan, call.problem.losses)


def loose(call, result, expected):
    """A NaN in a sequence without an alignment may also be reported as infinite."""
    p = call.problem
    for n in range(p.N):
        if p.nan[n] and not call.bad[n] and not p.fits(n):
            expected[n] = result[n]
    return expected


def check_loss(rng, call):
    zero_infinity = rng.random() < 0.5
    reduction = rng.choice(REDUCTIONS)
    options = {**call.loss_options(), "zero_infinity": zero_infinity}
    if rng.random() < 0.3:
        layer = nn.CTCLoss(reduction=str(reduction), **options)
        result = layer(*call.arguments())
    else:
        result = ctc_loss(*call.arguments(), reduction=str(reduction), **options)
    result = read(rng, result)
    expected = expected_losses(call)
    if zero_infinity:
        expected = np.where(expected == np.inf, 0, expected)
    if reduction == "none" and not call.unbatched:
        expected = loose(call, result, expected)
    elif call.problem.nan.any():
        return
    else:
        lengths = call.problem.target_lengths
        with np.errstate(invalid="ignore"):
            expected = reference.reduce(expected, lengths, reduction)
        expected = np.sum(expected) if call.unbatched else expected
    close(result, expected, call.problem.tolerance.loss, call.problem.tolerance.loss)


def expected_gradient(call, cotangent):
    """With respect to the scores, as a batch (T, N, C)."""
    p = call.problem
    gradient = np.zeros((p.T, p.N, p.C))
    for n in range(p.N):
        if cotangent[n] == 0:
            continue
        if call.bad[n]:
            gradient[:, n] = np.nan
        elif np.isnan(p.losses[n]):
            gradient[: p.input_lengths[n], n] = np.nan
        elif p.has_path(n):
            softmax = np.exp(p.log_probs(n)) if p.normalized else 0
            rows = softmax - p.gammas[n]
            gradient[: p.input_lengths[n], n] = cotangent[n] * rows
    return gradient


def check_gradient(rng, call):
    p = call.problem
    cotangent = np.round(rng.normal(size=p.N), 2).astype(np.float32)
    cotangent[rng.random(p.N) < 0.1] = 0
    real = mx.float64 if p.dtype == mx.float64 else mx.float32
    weights = mx.array(cotangent, real)
    rest = call.arguments()[1:]

    def loss(x):
        losses = ctc_loss(x, *rest, reduction="none", **call.loss_options())
        return losses * weights[0] if call.unbatched else losses * weights

    def total(x):
        # An infinite loss times a cotangent of 0 would be NaN.
        return mx.vjp(loss, [x], [mx.ones(() if call.unbatched else (p.N,), real)])[1][
            0
        ]

    scores = call.scores
    if isinstance(scores, np.ndarray):
        scores = mx.array(scores.copy())
    result = read(rng, total(scores))
    if call.unbatched:
        result = result[:, None]
    elif call.batch_first:
        result = result.swapaxes(0, 1)
    expected = expected_gradient(call, cotangent)
    for n in range(p.N):
        if p.nan[n] and not p.fits(n) and not call.bad[n]:
            expected[:, n] = result[:, n]
    _, absolute, rounding = p.tolerance
    close(result, expected, absolute * max(1, abs(cotangent).max(initial=0)), rounding)


def check_compiled(rng, call):
    """Arguments of a compiled function are traced, and so never known."""
    scores, *rest = call.arguments()
    if not all(isinstance(values, mx.array) for values in (scores, *rest)):
        return
    options = call.loss_options()
    compiled = mx.compile(lambda *xs: ctc_loss(*xs, reduction="none", **options))
    result = read(rng, compiled(scores, *rest))
    expected = expected_losses(call)
    result = result[None] if call.unbatched else result
    expected = loose(call, result, expected)
    close(result, expected, call.problem.tolerance.loss, call.problem.tolerance.loss)


def check_posteriors(rng, call):
    p = call.problem
    result = ctc_posteriors(*call.arguments(), by_class=True, **call.options())
    result = read(rng, result)
    result = result[None] if call.unbatched else result
    expected = np.zeros((p.N, p.T, p.C))
    for n in range(p.N):
        if call.bad[n]:
            expected[n] = np.nan
        else:
            expected[n, : p.input_lengths[n]] = p.gammas[n]
    expected = loose(call, result, expected)
    close(result, expected, max(p.tolerance.gradient, 2e-11), 0)


def check_alignment(rng, call):
    p = call.problem
    refused = list(call.refused)
    lengths_known = call.input_lengths.known and call.target_lengths.known
    if lengths_known and not call.refused:
        needed = p.target_lengths.astype(int)
        if call.targets.known:
            labels = [p.labels(n) for n in range(p.N)]
            needed = needed + [np.count_nonzero(y[1:] == y[:-1]) for y in labels]
        # A label out of range may be what keeps equal labels from being counted.
        if (needed > p.input_lengths)[~call.bad].any():
            refused.append("input_lengths")
        elif (needed > p.input_lengths).any():
            return
    options = call.align_options()
    if p.star is not None and rng.random() < 0.05:
        options["star"] = rng.choice([0.5, np.nan, np.inf, -np.inf])
        refused.append("star")
    call.refused = refused
    path, scores = forced_align(*call.arguments(), **options)
    path, scores = read(rng, path), read(rng, scores)
    if call.unbatched:
        path, scores = path[None], scores[None]
    for n in range(p.N):
        T = p.input_lengths[n]
        if call.bad[n] or (p.nan[n] and p.fits(n)):
            T = p.T if call.bad[n] else T
            assert np.isnan(scores[n, :T]).all(), (n, scores[n])
            assert (path[n] == p.blank).all(), (n, path[n])
            continue
        if p.nan[n]:
            continue
        assert (path[n, T:] == p.blank).all(), (n, path[n])
        assert (scores[n, T:] == 0).all(), (n, scores[n])
        if not p.has_path(n):
            assert (scores[n, :T] == -np.inf).all(), (n, scores[n])
            continue
        if T == 0:
            continue
        log_probs, classes = p.log_probs(n), path[n, :T].astype(int)
        assert reference.collapse(classes, p.blank) == p.labels(n).tolist(), classes
        own = log_probs[np.arange(T), classes]
        close(scores[n, :T], own, 1e-5, 1e-6)
        best = reference.best_alignment(log_probs, p.labels(n), p.blank)[1]
        close(own.sum(), best, 1e-4, 1e-6)


def check_greedy(rng, call):
    p = call.problem
    results = greedy_decode(
        call.scores, call.input_lengths.values, with_frames=True, **call.options()
    )
    results = [read(rng, a)[None] if call.unbatched else read(rng, a) for a in results]
    labels, counts, scores, frames, probabilities = results
    for n in range(p.N):
        bad_length = call.bad[n] and call.fault == "input_lengths"
        T = p.input_lengths[n]
        if bad_length or p.nan[n]:
            assert np.isnan(scores[n]), (n, scores)
            assert counts[n] == 0, (n, counts)
            assert (labels[n] == p.blank).all(), (n, labels)
            continue
        log_probs = p.log_probs(n)
        best = log_probs.argmax(axis=1) if T > 0 else np.zeros(0, int)
        close(scores[n], log_probs.max(axis=1).sum() if T > 0 else 0, 1e-4, 1e-5)
        two = np.sort(p.scores[:T, n], axis=1)[:, -2:]
        if p.C > 1 and (two[:, 0] == two[:, 1]).any():
            continue  # the first of two equal classes, which rounding may part
        expected = reference.collapse(best, p.blank)
        count = int(counts[n])
        assert labels[n, :count].tolist() == expected, (n, labels, expected)
        starts = np.flatnonzero((best != p.blank) & (np.diff(best, prepend=-1) != 0))
        assert frames[n, :count].tolist() == starts.tolist(), (n, frames, starts)
        own = np.exp(log_probs[starts, best[starts]])
        ends = np.append(starts[1:], T)
        one_frame = best[np.minimum(starts + 1, T - 1)] != best[starts]
        one_frame |= ends == starts + 1
        close(probabilities[n, :count][one_frame], own[one_frame], 1e-4, 1e-6)


def check_beam(rng, call):
    """Against all labellings of a tiny problem."""
    p = call.problem
    if call.fault in ("targets", "target_lengths"):
        call.refused = []
    elif call.fault == "input_lengths":
        call.refused = ["input_lengths"]
    tiny = p.T <= 4 and p.C <= 3
    width = 100 if tiny else int(rng.integers(1, 9))
    bonus = float(rng.choice([-0.5, 0.25, -np.inf])) if rng.random() < 0.3 else None
    scorers = {}
    if bonus is not None and rng.random() < 0.5:
        scorers["scorer"] = lambda prefix, label: bonus
    elif bonus is not None:
        scorers["prefix_scorer"] = lambda prefix: [bonus] * p.C
    hot = int(rng.integers(p.C)) if p.C > 1 and rng.random() < 0.3 else p.blank
    if hot != p.blank:
        scorers["hotwords"] = {(hot,): 0.5, (hot, hot): -0.25}
    found = beam_search_decode(
        call.scores,
        call.input_lengths.values,
        rng.choice([np.int64, int, np.uint8])(width),
        nbest=1 if not tiny else 3,
        **scorers,
        **call.options(),
    )
    found = [found] if call.unbatched else found
    for n in range(p.N):
        if p.nan[n]:
            assert found[n][0].labels == [], found[n]
            assert np.isnan(found[n][0].score), found[n]
        elif tiny:
            others = [c for c in range(p.C) if c != p.blank]
            log_probs = p.log_probs(n)
            scores = [
                (bonus or 0) * (size + 1)
                + hot_bonus(labels, hot, p.blank)
                - reference.ctc(log_probs, labels, p.blank)[0]
                for size in range(p.input_lengths[n] + 1)
                for labels in product(others, repeat=size)
            ]
            best = sorted(score for score in scores if score > -np.inf)[::-1][:3]
            close([h.score for h in found[n]], best, 1e-5, 1e-5)


def hot_bonus(labels, hot, blank):
    """Of the hotwords of :func:`check_beam`."""
    if hot == blank:
        return 0.0
    twice = sum(pair == (hot, hot) for pair in pairwise(labels))
    return 0.5 * labels.count(hot) - 0.25 * twice


def check_probabilities(rng, call):
    """A value that is no log-probability is refused, in a frame that is used."""
    p = call.problem
    call.refused = ["input_lengths"] if call.fault == "input_lengths" else []
    scores = p.scores.copy()
    if p.N > 0 and p.T > 0:
        t, n, c = (rng.integers(size) for size in (p.T, p.N, p.C))
        scores[t, n, c] = rng.choice([0.01, 0.7, 30.0])
        if t < p.input_lengths[n] and not p.with_logits and not call.refused:
            call.refused = ["log_probs of at most 0"]
    scores = mx.array(scores, p.dtype)
    beam_search_decode(
        in_layout(scores, call.unbatched, call.batch_first),
        call.input_lengths.values,
        4,
        **call.options(),
    )


CHECKS = [
    check_loss,
    check_loss,
    check_gradient,
    check_gradient,
    check_compiled,
    check_posteriors,
    check_alignment,
    check_greedy,
    check_beam,
    check_probabilities,
]
CALLS_PER_SEED = 12


def call_once(rng, problem):
    check = CHECKS[rng.integers(len(CHECKS))]
    if check is check_alignment and rng.random() < 0.5:
        problem = starred(rng, problem)
    call = random_call(rng, problem)
    if check is check_compiled and all(
        isinstance(values, mx.array) for values in call.arguments()
    ):
        call.refused = []
    if check is check_greedy and call.fault != "input_lengths":
        call.refused = []
    stream = mx.new_stream(mx.cpu) if rng.random() < 0.001 else None
    try:
        with mx.stream(stream) if stream else contextlib.nullcontext():
            check(rng, call)
    except ValueError as error:
        message = str(error)
        if not call.refused or not any(name in message for name in call.refused):
            raise AssertionError(f"{check.__name__}: {message}; {call}") from error
        if "Expected" not in message or " but got " not in message:
            raise AssertionError(f"{check.__name__}: {message}") from error
    except Exception as error:
        raise AssertionError(f"{check.__name__}: {error!r}; {call}") from error
    else:
        compiled = check is check_compiled
        if call.refused and not compiled:
            raise AssertionError(f"{check.__name__}: not refused; {call}")


def run_seed(seed):
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, for the mean of no sequence
        problem = random_problem(rng)
        for _ in range(CALLS_PER_SEED):
            call_once(rng, problem)


# --- Processes ------------------------------------------------------------------------


def work(first, step, end, progress, failures, run):
    """Run the seeds first, first + step, ... and say which one runs."""
    faulthandler.register(signal.SIGUSR1)
    mx.set_default_device(mx.cpu)
    for seed in range(first, end, step):
        progress.value = seed
        try:
            run(seed)
        except Exception:
            failures.put((seed, traceback.format_exc()))
    progress.value = end


class Worker:
    """A process over every ``step``-th seed, begun again after a crash or a hang."""

    def __init__(self, first, step, end, run, hang):
        self.context = multiprocessing.get_context("spawn")
        self.step, self.end, self.run, self.hang = step, end, run, hang
        self.done = 0
        self.failures = self.context.Queue()
        self.start(first)

    def start(self, first):
        self.first = first
        # Before its first seed a worker imports, which has no limit of seconds.
        self.progress = self.context.Value("q", first - 1, lock=False)
        self.seen, self.since = first, time.monotonic()
        arguments = (first, self.step, self.end, self.progress, self.failures, self.run)
        self.process = self.context.Process(target=work, args=arguments, daemon=True)
        self.process.start()

    def seeds(self):
        reached = max(self.progress.value, self.first)
        return self.done - (self.first - reached) // self.step

    def poll(self):
        """What has failed since, as pairs of a seed and a text."""
        while not self.failures.empty():
            yield self.failures.get()
        seed = self.progress.value
        if seed >= self.end:
            return
        if seed != self.seen:
            self.seen, self.since = seed, time.monotonic()
        if not self.process.is_alive():
            yield seed, f"the process ended with exit code {self.process.exitcode}"
        elif seed >= self.first and time.monotonic() - self.since > self.hang:
            os.kill(self.process.pid, signal.SIGUSR1)  # prints where it is
            self.process.join(1)
            self.process.kill()
            yield seed, f"no progress for {self.hang} s"
        else:
            return
        self.done = self.seeds() + 1
        self.start(seed + self.step)


def kind_of(text):
    """How a failure's error begins, which is the same in failures of one kind.

    Its message may go on over several lines.
    """
    lines = text.strip().splitlines()
    errors = [line for line in lines if line.startswith("AssertionError")]
    return (errors or lines)[-1][:60]


def drive(seconds, calls, first, workers, run=run_seed, hang=HANG, limit=20):
    """Run until the time is over or the calls are made. Returns calls and failures."""
    start = time.monotonic()
    end = first + -(-calls // CALLS_PER_SEED) if calls else 2**62
    pool = [Worker(first + i, workers, end, run, hang) for i in range(workers)]
    failures, kinds = [], Counter()
    while True:
        time.sleep(0.2)
        for worker in pool:
            for seed, text in worker.poll():
                kind = kind_of(text)
                kinds[kind] += 1
                if kinds[kind] == 1:
                    failures.append((seed, text))
                    print(f"seed {seed}: {text}", flush=True)
        over = seconds and time.monotonic() - start > seconds
        finished = all(worker.progress.value >= worker.end for worker in pool)
        if over or finished or len(failures) >= limit:
            break
    for worker in pool:
        worker.process.kill()
    made = CALLS_PER_SEED * sum(worker.seeds() for worker in pool)
    took = time.monotonic() - start
    print(f"{made} calls, {took:.0f} s, {sum(kinds.values())} failures", flush=True)
    for kind, count in kinds.most_common():
        print(f"  {count} x {kind}")
    return made, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, help="how long to run")
    parser.add_argument("--calls", type=int, help="how many calls to make")
    parser.add_argument("--seed", type=int, help="run one seed in this process")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if options.seed is not None:
        run_seed(options.seed)
        return
    seconds = options.seconds if options.seconds or options.calls else 30
    _, failures = drive(seconds, options.calls, options.first, options.workers)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
