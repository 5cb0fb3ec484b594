"""One form for the many in which a batch may be written.

Scores come with the frames or the batch first; targets padded, ragged, concatenated or
unbatched; lengths as arrays, lists, ints or masks, or not at all; each in any
container. What leaves here is always the same: log_probs (T, N, C), targets (N, S) and
lengths (N,), the last three int32.

Values that are known are checked here: those of lists, ints and NumPy arrays, and of
every mx.array that has been evaluated and is not traced by a transformation. Reading
others would force an evaluation: the ops check them and answer with NaN.
"""

from __future__ import annotations

import array
import math
import numbers
import operator
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

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


class Layout(NamedTuple):
    """Of the caller's log_probs."""

    T: int
    N: int
    is_batched: bool
    batch_first: bool


class Targets(NamedTuple):
    rows: Values  # (N, S)
    lengths: Values  # (N,) in the rows, which may end before a target that is too long
    counts: Values  # (N,) of labels, also of those that the rows leave out


class Values(NamedTuple):
    array: mx.array  # of any integer type
    known: bool  # whether it can be read without an evaluation


def from_host(values: Any) -> mx.array:
    """An array of a list, number or NumPy array.

    Raises ValueError for rows of different lengths, OverflowError for an int beyond 64
    bits, TypeError for what is no number.
    """
    if is_small_int(values):
        return mx.array(values)
    if isinstance(values, list) and set(map(type, values)) == {int}:
        with suppress(OverflowError):  # of one that has more than 32 bits
            buffer: Any = array.array("i", values)  # a type that MLX does not declare
            return mx.array(buffer)

    import numpy as np  # takes longer to import than MLX

    result = np.asarray(values)
    if result.size == 0:
        result = result.astype(np.int32)
    if result.dtype.kind in ("O" if is_numpy(values) else "fOu"):
        # NumPy makes floats, objects or uint64 of ints of more than 64 bits with sign.
        check_sizes(np.asarray(values, object))
    if result.dtype != bool and not np.issubdtype(result.dtype, np.number):
        raise TypeError(result.dtype)
    return from_numpy(result)


def check_sizes(values: np.ndarray[Any, Any]) -> None:
    """Raises OverflowError for an int beyond those of 64 bits with sign."""
    for value in values.flat:
        number = as_index(value)
        if number is not None and not -(2**63) <= number < 2**63:
            raise OverflowError(number)


def is_small_int(value: Any) -> bool:
    return type(value) is int and -(2**31) <= value < 2**31


def from_numpy(values: np.ndarray[Any, Any]) -> mx.array:
    """Of any byte order and strides; MLX refuses negative ones."""
    is_reversed = any(stride < 0 for stride in values.strides)
    native = values.dtype.newbyteorder("=")
    return mx.array(values.astype(native, order="C", copy=is_reversed))


def empty(shape: tuple[int, ...]) -> mx.array:
    import numpy as np

    return from_numpy(np.zeros(shape, np.int32))


def is_numpy(values: Any) -> bool:
    numpy = sys.modules.get("numpy")  # without it there are no such arrays
    return numpy is not None and isinstance(values, numpy.ndarray)


def layout_hint(shape: tuple[int, ...], layout: Layout) -> str:
    """The shape of targets or lengths that do not fit log_probs' N sequences.

    Says so if they are as many as log_probs has frames, which is how it looks when its
    first two axes are swapped.
    """
    T, N, is_batched, batch_first = layout
    if not is_batched or not shape or shape[0] != T or T == N:
        return str(shape)
    actual, other = "(T, N, C)", "(N, T, C)"
    if batch_first:
        actual, other = other, actual
    remedy = f"pass batch_first={not batch_first}"
    return f"{shape}: log_probs are {actual}; for {other} {remedy}"


def fail(op: str, expected: str, got: object) -> NoReturn:
    raise ValueError(f"[{op}] Expected {expected} but got {got}.")


def read_batch(
    op: str,
    log_probs: Scores,
    targets: Integers,
    input_lengths: Integers | None,
    target_lengths: Integers | None,
    blank: int,
    batch_first: bool = False,
    *,
    for_alignment: bool = False,
    with_star: bool = False,
) -> Batch:
    frames = read_frames(op, log_probs, input_lengths, blank, batch_first)
    labels = read_targets(
        op,
        targets,
        target_lengths,
        frames,
        batch_first,
        for_alignment=for_alignment,
        with_star=with_star,
    )
    if for_alignment and frames.lengths.known and labels.lengths.known:
        _ext.check_fit(op, *labels.rows, frames.lengths.array, labels.lengths.array)
    return in_one_form(frames, labels)


def in_one_form(frames: Frames, targets: Targets) -> Batch:
    return Batch(
        frames.log_probs,
        to_int32(targets.rows),
        to_int32(frames.lengths),
        to_int32(targets.lengths),
        frames.blank,
    )


def read_frames(
    op: str,
    log_probs: Scores,
    input_lengths: Integers | None,
    blank: int,
    batch_first: bool = False,
) -> Frames:
    if not isinstance(log_probs, mx.array):
        if not is_numpy(log_probs):
            got = type(log_probs).__name__
            fail(op, "log_probs as an mx.array or a NumPy array", got)
        log_probs = from_numpy(log_probs)
    if log_probs.ndim not in (2, 3):
        shapes = "(N, T, C)" if batch_first else "(T, N, C)"
        fail(op, f"log_probs of shape {shapes} or (T, C)", log_probs.shape)
    if not mx.issubdtype(log_probs.dtype, mx.floating):
        fail(op, "log_probs of a floating type", log_probs.dtype)
    is_batched = log_probs.ndim == 3
    if not is_batched:
        log_probs = mx.expand_dims(log_probs, 1)
    elif batch_first:
        log_probs = log_probs.swapaxes(0, 1)
    T, N, C = log_probs.shape
    blank = read_blank(op, blank, C)
    if input_lengths is None:
        input_lengths = T
    layout = Layout(T, N, is_batched, batch_first)
    lengths = read_lengths(op, "input_lengths", input_lengths, T, layout)
    if lengths.known:
        _ext.check_lengths(op, "input_lengths", lengths.array, T)
    return Frames(log_probs, lengths, blank, is_batched)


def read_targets(
    op: str,
    targets: Integers,
    target_lengths: Integers | None,
    frames: Frames,
    batch_first: bool,
    *,
    for_alignment: bool = False,
    with_star: bool = False,
) -> Targets:
    T, N, C = frames.log_probs.shape
    C += with_star  # a label, but not of the scores
    layout = Layout(T, N, frames.is_batched, batch_first)
    rows, sizes = read_rows(op, targets, layout)
    is_concatenated = rows.array.ndim == 1
    if target_lengths is not None:
        width = None if is_concatenated else rows.array.shape[1]
        lengths = read_lengths(op, "target_lengths", target_lengths, width, layout)
    elif not is_concatenated:
        lengths = count_labels(op, rows, frames.blank)
    else:
        fail(op, "target_lengths for targets of shape (sum,)", None)

    counts = lengths
    excluded = frames.blank if for_alignment else -1
    if is_concatenated:
        rows, lengths = pad_concatenated(op, rows, lengths, T, C, excluded)
    if lengths.known:
        _ext.check_lengths(op, "target_lengths", lengths.array, rows.array.shape[1])
        check_row_sizes(op, lengths, sizes)
    if rows.known and lengths.known:
        _ext.check_labels(op, rows.array, lengths.array, C, excluded)
    return Targets(rows, lengths, counts)


def read_rows(op: str, targets: Integers, layout: Layout) -> tuple[Values, list[int]]:
    """Targets (N, S), or concatenated (sum,), and the sizes of rows that are ragged."""
    sizes = ragged_sizes(targets)
    if sizes:
        targets = pad_rows(cast("Sequence[Any]", targets), max(sizes))
    labels = read_integers(op, "targets", targets)
    shape = labels.array.shape
    if not layout.is_batched:
        if len(shape) != 1:
            fail(op, "targets of shape (S,) for one sequence", shape)
        return as_row(op, labels), []
    if len(shape) != 1 and (len(shape) != 2 or shape[0] != layout.N):
        wanted = f"targets of shape ({layout.N}, S) or (sum,)"
        fail(op, wanted, layout_hint(shape, layout))
    return labels, sizes


def ragged_sizes(targets: Any) -> list[int]:
    """How many labels each row has, if they are not equally many; else nothing."""
    if isinstance(targets, list | tuple):
        with suppress(TypeError):  # of a number's size
            sizes = [len(row) for row in targets]
            return sizes if len(set(sizes)) > 1 else []
    return []


def pad_rows(rows: Sequence[Any], S: int) -> list[list[Any]]:
    """Rows of one length, each with what is no label at its end."""
    lists = (row if isinstance(row, list | tuple) else row.tolist() for row in rows)
    return [[*row, *[-1] * (S - len(row))] for row in lists]


def check_row_sizes(op: str, lengths: Values, sizes: list[int]) -> None:
    """Of ragged targets, a length is at most the size of its own row."""
    if not sizes:
        return
    for n, length in enumerate(cast("list[int]", lengths.array.tolist())):
        if length > sizes[n]:
            fail(op, f"target_lengths[{n}] in [0, {sizes[n]}]", length)


def count_labels(op: str, rows: Values, blank: int) -> Values:
    """The lengths of targets (N, S) that are padded with what is no label."""
    if rows.known:
        return Values(_ext.label_lengths(op, rows.array, blank), True)
    is_label = (rows.array >= 0) & (rows.array != blank)
    return Values(count_prefix(is_label), False)


def count_mask(op: str, name: str, mask: Values) -> Values:
    """The lengths (N,) of a mask (N, W) of ones and after them zeros."""
    if mask.known:
        return Values(_ext.mask_lengths(op, name, mask.array), True)
    is_one = mask.array == 1
    is_mask = mx.all(is_one | (mask.array == 0), axis=1)
    return Values(mx.where(is_mask, count_prefix(is_one), OUT_OF_RANGE), False)


def count_prefix(counts: mx.array) -> mx.array:
    """How many of each row (N, W) count, if these are the first."""
    lengths = mx.sum(counts, axis=1)
    is_prefix = counts == (mx.arange(counts.shape[1]) < lengths[:, None])
    return mx.where(mx.all(is_prefix, axis=1), lengths, OUT_OF_RANGE)


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
    value = math.nan
    if isinstance(star, numbers.Real) and not isinstance(star, bool):
        with suppress(OverflowError):  # of an int beyond the floats
            value = float(star)
    if not -math.inf < value <= 0:
        fail(op, "star as a finite number of at most 0", repr(star))
    return value


def read_integers(
    op: str, name: str, values: Integers, *, or_booleans: bool = False
) -> Values:
    if isinstance(values, mx.array):
        values = Values(values, _ext.is_known(values))
    else:
        try:
            values = Values(from_host(values), True)
        except ValueError:
            fail(op, f"{name} as rows of one length", "rows of several")
        except OverflowError as error:
            fail(op, f"{name} in [{-(2**63)}, {2**63})", error)
        except TypeError as error:
            fail(op, f"{name} of an integer type", error)
    dtype = values.array.dtype
    if not mx.issubdtype(dtype, mx.integer) and not (or_booleans and dtype == mx.bool_):
        fail(op, f"{name} of an integer type", dtype)
    if values.array.size == 0 and not values.known:
        # There is nothing to read. Being known keeps it out of reductions in a
        # compiled function: MLX 0.32.4 does not return from mx.sum of an empty
        # array that was made from a NumPy array.
        return Values(empty(values.array.shape), True)
    return values


def read_lengths(
    op: str, name: str, lengths: Integers, width: int | None, layout: Layout
) -> Values:
    """Lengths (N,), given as such, as one int for all or as a mask (N, width)."""
    values = read_integers(op, name, lengths, or_booleans=True)
    array, known = values
    shape, N = array.shape, layout.N
    if is_mask(array, layout.is_batched):
        rows = values if layout.is_batched else as_row(op, values)
        if rows.array.shape != (N, width):
            as_mask = "" if width is None else f", or ({N}, {width}) as a mask,"
            fail(op, f"{name} of shape ({N},){as_mask}", layout_hint(shape, layout))
        return count_mask(op, name, rows)
    if array.dtype == mx.bool_:
        fail(op, f"{name} of an integer type", array.dtype)
    if not shape:
        if not known:
            return Values(mx.repeat(array, N), False)
        return Values(from_host([array.item()] * N), True)
    if shape != (N,):
        fail(op, f"{name} of shape ({N},)", layout_hint(shape, layout))
    return values


def is_mask(lengths: mx.array, is_batched: bool) -> bool:
    """A mask has one axis more than lengths, but those of one sequence may be (1,)."""
    if is_batched:
        return lengths.ndim == 2
    return lengths.ndim == 1 and (lengths.size != 1 or lengths.dtype == mx.bool_)


def as_row(op: str, values: Values) -> Values:
    """The targets or the mask (S,) of a single sequence as (1, S)."""
    if not values.known:
        return Values(values.array[None], False)
    size = mx.array([values.array.size])
    return Values(_ext.pad_targets(op, *values, size), True)


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
