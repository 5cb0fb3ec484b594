"""One form for the many in which a batch may be written.

Targets come padded, concatenated or unbatched; lengths as arrays, lists or ints; each
in any container. What leaves here is always the same: log_probs (T, N, C), targets
(N, S) and lengths (N,), the last three int32.

Values that are known are checked here: those of lists, ints and NumPy arrays, and of
every mx.array that has been evaluated and is not traced by a transformation. Reading
others would force an evaluation: the ops check them and answer with NaN.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import mlx.core as mx

from mlx_ctc import _ext

if TYPE_CHECKING:
    import numpy as np

    Scores = mx.array | np.ndarray[Any, Any]
    Integers = mx.array | np.ndarray[Any, Any] | Sequence[Any] | int

# A target length that the ops find out of range. Used if the lengths of concatenated
# targets do not sum to their size, or if a cut-off target has a bad label, so that the
# loss is NaN.
OUT_OF_RANGE = -(2**31)


class Batch(NamedTuple):
    log_probs: mx.array  # (T, N, C)
    targets: mx.array  # (N, S)
    input_lengths: mx.array  # (N,)
    target_lengths: mx.array  # (N,)
    blank: int  # in [0, C)


class Frames(NamedTuple):
    log_probs: mx.array  # (T, N, C)
    lengths: Values  # (N,)
    blank: int  # in [0, C)
    is_batched: bool  # whether the caller's log_probs had an axis N


class Values(NamedTuple):
    array: mx.array  # of any integer type
    known: bool  # whether it can be read without an evaluation


def from_host(values: Any) -> mx.array:
    """An array of a list, number or NumPy array, in the type that NumPy gives it.

    Raises ValueError for rows of different lengths.
    """
    import numpy as np  # takes longer to import than MLX

    values = np.asarray(values)
    if values.size == 0:
        values = values.astype(np.int32)
    if not np.issubdtype(values.dtype, np.number):
        raise TypeError(values.dtype)
    return from_numpy(values)


def from_numpy(values: np.ndarray[Any, Any]) -> mx.array:
    """Of any byte order and strides; MLX refuses negative ones."""
    is_reversed = any(stride < 0 for stride in values.strides)
    native = values.dtype.newbyteorder("=")
    return mx.array(values.astype(native, order="C", copy=is_reversed))


def empty(shape: tuple[int, ...]) -> mx.array:
    import numpy as np

    return from_numpy(np.zeros(shape, np.int32))


def is_numpy(values: Any) -> bool:
    import numpy as np

    return isinstance(values, np.ndarray)


def batch_first_hint(
    shape: tuple[int, ...], log_probs: mx.array, is_batched: bool
) -> str:
    """The shape of targets or lengths that do not fit log_probs' N sequences.

    Says so if they are as many as log_probs has rows, which is how it looks when its
    batch comes first.
    """
    T, N, _ = log_probs.shape
    if is_batched and shape and shape[0] == T != N:
        return f"{shape}: log_probs are (T, N, C); for (N, T, C) pass x.swapaxes(0, 1)"
    return str(shape)


def fail(op: str, expected: str, got: object) -> NoReturn:
    raise ValueError(f"[{op}] Expected {expected} but got {got}.")


def read_batch(
    op: str,
    log_probs: Scores,
    targets: Integers,
    input_lengths: Integers,
    target_lengths: Integers,
    blank: int,
    *,
    for_alignment: bool = False,
    with_star: bool = False,
) -> Batch:
    frames = read_frames(op, log_probs, input_lengths, blank)
    T, N, C = frames.log_probs.shape
    C += with_star  # a label, but not of the scores
    labels = read_integers(op, "targets", targets)
    scores, is_batched = frames.log_probs, frames.is_batched
    lengths = read_lengths(op, "target_lengths", target_lengths, scores, is_batched)
    excluded = frames.blank if for_alignment else -1
    shape = labels.array.shape
    if not is_batched:
        if len(shape) != 1:
            fail(op, "targets of shape (S,) for one sequence", shape)
        labels = as_row(op, labels)
    elif len(shape) == 1:
        labels, lengths = pad_concatenated(op, labels, lengths, T, C, excluded)
    elif len(shape) != 2 or shape[0] != N:
        wanted = f"targets of shape ({N}, S) or (sum,)"
        fail(op, wanted, batch_first_hint(shape, scores, is_batched))

    if lengths.known:
        _ext.check_lengths(op, "target_lengths", lengths.array, labels.array.shape[1])
    if labels.known and lengths.known:
        _ext.check_labels(op, labels.array, lengths.array, C, excluded)
    if for_alignment and frames.lengths.known and lengths.known:
        _ext.check_fit(op, *labels, frames.lengths.array, lengths.array)
    return Batch(
        frames.log_probs,
        to_int32(labels),
        to_int32(frames.lengths),
        to_int32(lengths),
        frames.blank,
    )


def read_frames(
    op: str, log_probs: Scores, input_lengths: Integers, blank: int
) -> Frames:
    if not isinstance(log_probs, mx.array):
        if not is_numpy(log_probs):
            got = type(log_probs).__name__
            fail(op, "log_probs as an mx.array or a NumPy array", got)
        log_probs = from_numpy(log_probs)
    if log_probs.ndim not in (2, 3):
        fail(op, "log_probs of shape (T, N, C) or (T, C)", log_probs.shape)
    if not mx.issubdtype(log_probs.dtype, mx.floating):
        fail(op, "log_probs of a floating type", log_probs.dtype)
    is_batched = log_probs.ndim == 3
    if not is_batched:
        log_probs = mx.expand_dims(log_probs, 1)
    T, _, C = log_probs.shape
    blank = read_blank(op, blank, C)
    lengths = read_lengths(op, "input_lengths", input_lengths, log_probs, is_batched)
    if lengths.known:
        _ext.check_lengths(op, "input_lengths", lengths.array, T)
    return Frames(log_probs, lengths, blank, is_batched)


def as_index(value: Any) -> int | None:
    """An int of any integer type but bool, or None."""
    if isinstance(value, bool):
        return None
    with suppress(TypeError):
        return operator.index(value)
    return None


def read_blank(op: str, blank: int, C: int) -> int:
    """A class in [0, C); a negative one counts from the end."""
    number = as_index(blank)
    if number is None:
        fail(op, "blank as an int", repr(blank))
    if not -C <= number < C:
        fail(op, f"blank in [{-C}, {C})", number)
    return number % C


def read_star(op: str, star: Any) -> float:
    """The log-probability of a star in each frame."""
    is_number = isinstance(star, numbers.Real) and not isinstance(star, bool)
    if not is_number or not -math.inf < star <= 0:
        fail(op, "star as a finite number of at most 0", repr(star))
    return float(star)


def read_integers(op: str, name: str, values: Integers) -> Values:
    if isinstance(values, mx.array):
        values = Values(values, _ext.is_known(values))
    else:
        try:
            values = Values(from_host(values), True)
        except ValueError:
            fail(op, f"{name} as rows of one length", "rows of several")
        except TypeError as error:
            fail(op, f"{name} of an integer type", error)
    if not mx.issubdtype(values.array.dtype, mx.integer):
        fail(op, f"{name} of an integer type", values.array.dtype)
    if values.array.size == 0 and not values.known:
        # There is nothing to read. Being known keeps it out of reductions in a
        # compiled function: MLX 0.32.4 does not return from mx.sum of an empty
        # array that was made from a NumPy array.
        return Values(empty(values.array.shape), True)
    return values


def read_lengths(
    op: str, name: str, lengths: Integers, log_probs: mx.array, is_batched: bool
) -> Values:
    values = read_integers(op, name, lengths)
    N = log_probs.shape[1]
    if values.array.ndim == 0:
        if not values.known:
            return Values(mx.repeat(values.array, N), False)
        return Values(from_host([values.array.item()] * N), True)
    if values.array.shape != (N,):
        got = batch_first_hint(values.array.shape, log_probs, is_batched)
        fail(op, f"{name} of shape ({N},)", got)
    return values


def as_row(op: str, targets: Values) -> Values:
    """The targets (S,) of a single sequence as (1, S)."""
    if not targets.known:
        return Values(targets.array[None], False)
    size = mx.array([targets.array.size])
    return Values(_ext.pad_targets(op, *targets, size), True)


def pad_concatenated(
    op: str, targets: Values, lengths: Values, T: int, C: int, excluded: int
) -> tuple[Values, Values]:
    """Concatenated targets (sum of lengths,) as rows (N, S)."""
    size = targets.array.shape[0]
    if lengths.known:
        _ext.check_lengths(op, "target_lengths", lengths.array, size)
        rows = _ext.pad_targets(op, *targets, lengths.array)
        return Values(rows, targets.known), lengths

    # The longest target is not known. One of more than T labels has no alignment,
    # whatever comes after.
    S = min(size, T + 1)
    counts, labels = to_int32(lengths), to_int32(targets)
    end = mx.cumsum(counts)
    begin = end - counts
    right = (mx.sum(counts) == size) & mx.all(counts >= 0)
    if size > S:
        # The op does not see all labels of a target that is cut off.
        bad = (labels < 0) | (labels >= C) | (labels == excluded)
        bad_before = mx.pad(mx.cumsum(bad.astype(mx.int32)), (1, 0))
        begin_and_end = mx.clip(mx.stack([begin, end]), 0, size)
        before_begin, before_end = bad_before[begin_and_end]
        right = right & (before_begin == before_end)
    index = begin[:, None] + mx.arange(S)
    rows = labels[mx.clip(index, 0, max(size - 1, 0))]
    counts = mx.where(right, mx.minimum(counts, T + 1), OUT_OF_RANGE)
    return Values(rows, False), Values(counts, False)


def to_int32(values: Values) -> mx.array:
    """In 32 bits, where numbers that do not fit stay out of every range."""
    array, known = values
    if array.dtype == mx.int32:
        return array
    if known:
        return _ext.to_int32(array)
    if array.dtype in (mx.uint32, mx.uint64):
        array = mx.minimum(array, 2**31 - 1)
    elif array.dtype == mx.int64:
        array = mx.clip(array, -(2**31), 2**31 - 1)
    return array.astype(mx.int32)
