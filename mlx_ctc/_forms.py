"""One form for the many in which a batch may be written.

Targets come padded, concatenated or unbatched; lengths as arrays, lists or ints; each
on the host or inside an mx.array. What leaves here is always the same: log_probs
(T, N, C), targets (N, S) and lengths (N,), the last three int32.

Values on the host are checked here. Those inside an mx.array are not read, since that
would force an evaluation: the op checks them where it reads them.
"""

from collections.abc import Sequence
from typing import NamedTuple, NoReturn, TypeAlias

import mlx.core as mx
import numpy as np

Integers: TypeAlias = mx.array | np.ndarray | Sequence | int

INT32 = np.iinfo(np.int32)

# Stands in for the target lengths when concatenated targets are not as many as they
# add up to; the op reports it in these words.
WRONG_TOTAL = INT32.min


class Batch(NamedTuple):
    log_probs: mx.array  # (T, N, C)
    targets: mx.array  # (N, S)
    input_lengths: mx.array  # (N,)
    target_lengths: mx.array  # (N,)


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
    ) -> Batch:
        if not isinstance(log_probs, mx.array):
            self.fail("log_probs as an mx.array", type(log_probs).__name__)
        if log_probs.ndim not in (2, 3):
            self.fail("log_probs of shape (T, N, C) or (T, C)", log_probs.shape)
        targets = self.integers("targets", targets)
        if log_probs.ndim == 2:
            log_probs = mx.expand_dims(log_probs, 1)
            if targets.ndim != 1:
                self.fail("targets of shape (S,) for one sequence", targets.shape)
            targets = targets[None]

        T, N, C = log_probs.shape
        if not 0 <= blank < C:
            self.fail(f"blank in [0, {C})", blank)
        input_lengths = self.lengths("input_lengths", input_lengths, N)
        target_lengths = self.lengths("target_lengths", target_lengths, N)
        self.check_lengths("input_lengths", input_lengths, T)
        if targets.ndim == 1:
            targets, target_lengths = self.padded(targets, target_lengths, T)
        if targets.ndim != 2 or targets.shape[0] != N:
            self.fail(f"targets of shape ({N}, S) or (sum,)", targets.shape)
        self.check_lengths("target_lengths", target_lengths, targets.shape[1])
        self.check_labels(targets, target_lengths, C)
        return Batch(
            log_probs,
            self.as_int32(targets),
            self.as_int32(input_lengths),
            self.as_int32(target_lengths),
        )

    def integers(self, name: str, values: Integers) -> mx.array | np.ndarray:
        """An array where it is: in MLX, or as NumPy's on the host."""
        if isinstance(values, mx.array):
            is_integer = mx.issubdtype(values.dtype, mx.integer)
        else:
            try:
                values = np.asarray(values)
            except ValueError:
                self.fail(f"{name} as rows of one length", "rows of several")
            if values.size == 0:
                values = values.astype(np.int32)
            is_integer = np.issubdtype(values.dtype, np.integer)
        if not is_integer:
            self.fail(f"{name} of an integer type", values.dtype)
        return values

    def lengths(self, name: str, values: Integers, N: int) -> mx.array | np.ndarray:
        values = self.integers(name, values)
        if values.ndim == 0:
            if isinstance(values, mx.array):
                values = mx.broadcast_to(values, (N,))
            else:
                values = np.broadcast_to(values, (N,))
        if values.shape != (N,):
            self.fail(f"{name} of shape ({N},)", values.shape)
        return values

    def check_lengths(self, name: str, values: mx.array | np.ndarray, most: int):
        if isinstance(values, np.ndarray):
            for n in np.flatnonzero((values < 0) | (values > most))[:1]:
                self.fail(f"{name}[{n}] in [0, {most}]", values[n])

    def check_labels(
        self,
        targets: mx.array | np.ndarray,
        lengths: mx.array | np.ndarray,
        C: int,
    ):
        if isinstance(targets, np.ndarray) and isinstance(lengths, np.ndarray):
            used = np.arange(targets.shape[1]) < lengths[:, None]
            outside = used & ((targets < 0) | (targets >= C))
            for n, s in np.argwhere(outside)[:1]:
                self.fail(f"targets[{n}, {s}] in [0, {C})", targets[n, s])

    def padded(
        self,
        targets: mx.array | np.ndarray,
        lengths: mx.array | np.ndarray,
        T: int,
    ) -> tuple[mx.array | np.ndarray, mx.array | np.ndarray]:
        """Concatenated targets (sum of lengths,) as rows (N, S)."""
        size = targets.shape[0]
        if isinstance(lengths, np.ndarray):
            if lengths.sum() != size:
                self.fail(
                    "1-D targets of as many labels as target_lengths add up to, "
                    f"{lengths.sum()},",
                    size,
                )
            S = lengths.max(initial=0)
            # Past a target's end any label will do.
            index = (np.cumsum(lengths) - lengths)[:, None] + np.arange(S)
            index = np.clip(index, 0, max(size - 1, 0))
            if isinstance(targets, mx.array) and size > 0:
                index = mx.array(index.astype(np.int32))
            elif isinstance(targets, mx.array):
                targets = np.zeros(0, np.int32)
            return targets[index], lengths

        # The longest target is not known. One of more than T labels has no alignment,
        # whatever comes after.
        S = min(size, T + 1)
        lengths = self.as_int32(lengths)
        targets = self.as_int32(targets)
        right = mx.sum(lengths) == size
        index = (mx.cumsum(lengths) - lengths)[:, None] + mx.arange(S)
        targets = targets[mx.clip(index, 0, max(size - 1, 0))]
        lengths = mx.where(right, mx.minimum(lengths, T + 1), WRONG_TOTAL)
        return targets, lengths

    def as_int32(self, values: mx.array | np.ndarray) -> mx.array:
        """In 32 bits, where numbers that do not fit stay out of every range."""
        if isinstance(values, np.ndarray):
            return mx.array(np.clip(values, INT32.min, INT32.max).astype(np.int32))
        if values.dtype in (mx.uint32, mx.uint64):
            values = mx.minimum(values, INT32.max)
        elif values.dtype == mx.int64:
            values = mx.clip(values, INT32.min, INT32.max)
        return values.astype(mx.int32)
