"""One form for the many in which a batch may be written.

Targets come padded, concatenated or unbatched; lengths as arrays, lists or ints; each
on the host or inside an mx.array. What leaves here is always the same: log_probs
(T, N, C), targets (N, S) and lengths (N,), the last three int32.

Values on the host are checked here. Those inside an mx.array are not read, since that
would force an evaluation: the op checks them where it reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import mlx.core as mx

if TYPE_CHECKING:
    import numpy as np

    Integers = mx.array | np.ndarray | Sequence | int
    Values = mx.array | np.ndarray

# Stands in for every target length when concatenated targets are not as many as they
# add up to; the op reports it in these words.
WRONG_TOTAL = -(2**31)


class Batch(NamedTuple):
    log_probs: mx.array  # (T, N, C)
    targets: mx.array  # (N, S)
    input_lengths: mx.array  # (N,)
    target_lengths: mx.array  # (N,)


def host():
    from mlx_ctc import _host

    return _host


def on_host(*arrays: Values) -> bool:
    return mx.array not in map(type, arrays)


class Canonical:
    """Brings the arguments of ``op``, the name in its errors, into their one form."""

    def __init__(self, op: str):
        self.op = op

    def fail(self, expected: str, got: object) -> NoReturn:
        raise ValueError(f"[{self.op}] Expected {expected} but got {got}.")

    def batch(
        self,
        log_probs: mx.array,
        targets: Integers,
        input_lengths: Integers,
        target_lengths: Integers,
        blank: int,
        *,
        must_fit: bool = False,
    ) -> Batch:
        frames, input_lengths = self.frames(log_probs, input_lengths, blank)
        targets = self.integers("targets", targets)
        if log_probs.ndim == 2:
            if targets.ndim != 1:
                self.fail("targets of shape (S,) for one sequence", targets.shape)
            targets = targets[None]

        T, N, C = frames.shape
        target_lengths = self.lengths("target_lengths", target_lengths, N)
        if targets.ndim == 1:
            targets, target_lengths = self.padded(targets, target_lengths, T)
        if targets.ndim != 2 or targets.shape[0] != N:
            self.fail(f"targets of shape ({N}, S) or (sum,)", targets.shape)
        self.check_lengths("target_lengths", target_lengths, targets.shape[1])
        self.check_labels(targets, target_lengths, C)
        if must_fit:
            self.check_fit(targets, input_lengths, target_lengths)
        return Batch(
            frames,
            self.int32(targets),
            self.int32(input_lengths),
            self.int32(target_lengths),
        )

    def frames(
        self, log_probs: mx.array, input_lengths: Integers, blank: int
    ) -> tuple[mx.array, Values]:
        """log_probs (T, N, C) and input_lengths (N,), which may still be long."""
        if not isinstance(log_probs, mx.array):
            self.fail("log_probs as an mx.array", type(log_probs).__name__)
        if log_probs.ndim not in (2, 3):
            self.fail("log_probs of shape (T, N, C) or (T, C)", log_probs.shape)
        if not mx.issubdtype(log_probs.dtype, mx.floating):
            self.fail("log_probs of a floating type", log_probs.dtype)
        if log_probs.ndim == 2:
            log_probs = mx.expand_dims(log_probs, 1)
        T, N, C = log_probs.shape
        if not 0 <= blank < C:
            self.fail(f"blank in [0, {C})", blank)
        input_lengths = self.lengths("input_lengths", input_lengths, N)
        self.check_lengths("input_lengths", input_lengths, T)
        return log_probs, input_lengths

    def integers(self, name: str, values: Integers) -> Values:
        if isinstance(values, mx.array):
            is_integer = mx.issubdtype(values.dtype, mx.integer)
        else:
            try:
                values = host().array(values)
            except ValueError:
                self.fail(f"{name} as rows of one length", "rows of several")
            is_integer = host().is_integer(values)
        if not is_integer:
            self.fail(f"{name} of an integer type", values.dtype)
        return values

    def lengths(self, name: str, values: Integers, N: int) -> Values:
        values = self.integers(name, values)
        if values.ndim == 0:
            values = values[None].repeat(N) if on_host(values) else mx.repeat(values, N)
        if values.shape != (N,):
            self.fail(f"{name} of shape ({N},)", values.shape)
        return values

    def check_lengths(self, name: str, lengths: Values, most: int):
        if on_host(lengths):
            index = host().first_outside(lengths, most + 1)
            if index is not None:
                self.fail(f"{name}[{index[0]}] in [0, {most}]", lengths[index])

    def check_labels(self, targets: Values, lengths: Values, C: int):
        if on_host(targets, lengths):
            used = host().used_labels(targets.shape[1], lengths)
            index = host().first_outside(targets, C, used)
            if index is not None:
                self.fail(
                    f"targets[{index[0]}, {index[1]}] in [0, {C})", targets[index]
                )

    def check_fit(self, targets: Values, input_lengths: Values, target_lengths: Values):
        """An alignment has a frame for each label, and for a blank between equals."""
        if on_host(input_lengths, target_lengths):
            needed = target_lengths
            if on_host(targets):
                needed = needed + host().repeats(targets, target_lengths)
            short = (needed > input_lengths).nonzero()[0]
            if len(short) > 0:
                n = short[0]
                self.fail(
                    f"input_lengths[{n}] of {needed[n]} or more for its target",
                    input_lengths[n],
                )

    def padded(self, targets: Values, lengths: Values, T: int) -> tuple[Values, Values]:
        """Concatenated targets (sum of lengths,) as rows (N, S)."""
        size = targets.shape[0]
        if on_host(lengths):
            total = lengths.sum()
            if total != size:
                self.fail(f"1-D targets of sum(target_lengths) = {total} labels", size)
            index = host().padded_index(lengths, size)
            return targets[index if on_host(targets) else mx.array(index)], lengths

        # The longest target is not known. One of more than T labels has no alignment,
        # whatever comes after.
        S = min(size, T + 1)
        lengths = self.int32(lengths)
        right = (mx.sum(lengths) == size) & mx.all(lengths >= 0)
        index = (mx.cumsum(lengths) - lengths)[:, None] + mx.arange(S)
        targets = self.int32(targets)[mx.clip(index, 0, max(size - 1, 0))]
        lengths = mx.where(right, mx.minimum(lengths, T + 1), WRONG_TOTAL)
        return targets, lengths

    def int32(self, values: Values) -> mx.array:
        """In 32 bits, where numbers that do not fit stay out of every range."""
        if values.dtype == mx.int32:
            return values
        if on_host(values):
            return host().int32(values)
        if values.dtype in (mx.uint32, mx.uint64):
            values = mx.minimum(values, 2**31 - 1)
        elif values.dtype == mx.int64:
            values = mx.clip(values, -(2**31), 2**31 - 1)
        return values.astype(mx.int32)
