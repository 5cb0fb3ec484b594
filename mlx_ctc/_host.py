"""Targets and lengths that lie on the host, as NumPy arrays.

Loaded when the first one comes: importing NumPy takes longer than importing MLX.
"""

from typing import Any

import mlx.core as mx
import numpy as np

INT32 = np.iinfo(np.int32)


def array(values: Any) -> np.ndarray:
    """Raises ValueError for rows of different lengths."""
    values = np.asarray(values)
    return values if values.size > 0 else values.astype(np.int32)


def is_integer(values: np.ndarray) -> bool:
    return np.issubdtype(values.dtype, np.integer)


def first_outside(values: np.ndarray, end: int, used: Any = True) -> tuple | None:
    """The index of the first used value that is not in [0, end)."""
    outside = np.argwhere(used & ((values < 0) | (values >= end)))
    return tuple(outside[0].tolist()) if len(outside) else None


def used_labels(S: int, lengths: np.ndarray) -> np.ndarray:
    """Which labels of padded targets (N, S) belong to a target."""
    return np.arange(S) < lengths[:, None]


def repeats(targets: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """How many labels of each target equal the one before."""
    equal = targets[:, 1:] == targets[:, :-1]
    return (equal & used_labels(targets.shape[1], lengths)[:, 1:]).sum(axis=1)


def padded_index(lengths: np.ndarray, size: int) -> np.ndarray:
    """Where in concatenated targets the labels of rows (N, S) are.

    Past a target's end any label will do.
    """
    begin = np.cumsum(lengths) - lengths
    index = begin[:, None] + np.arange(lengths.max(initial=0))
    return np.clip(index, 0, max(size - 1, 0))


def int32(values: np.ndarray) -> mx.array:
    """Numbers that do not fit stay out of every range."""
    return mx.array(np.clip(values, INT32.min, INT32.max).astype(np.int32))
