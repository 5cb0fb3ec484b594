# An array in the emulated device's memory: its bytes, and which were written.
#
# A kernel's output begins with no byte written. The marks stay with the array from
# one launch to the next, so that a gap which one kernel leaves in a table is noticed
# when another kernel reads it.

from dataclasses import dataclass

import mlx.core as mx
import numpy as np


@dataclass
class Buffer:
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements
    dtype: mx.Dtype
    data: np.ndarray  # uint8, the bytes
    written: np.ndarray  # uint8, 0 or 1 for each byte

    @classmethod
    def empty(cls, shape, dtype: mx.Dtype) -> "Buffer":
        size = int(np.prod(shape, dtype=np.int64)) * dtype.size
        return cls(
            tuple(shape),
            _row_contiguous_strides(shape),
            dtype,
            np.full(size, 0xFF, np.uint8),
            np.zeros(size, np.uint8),
        )

    @classmethod
    def of(cls, array: mx.array) -> "Buffer":
        buffer = cls.empty(array.shape, array.dtype)
        bytes_ = np.array(mx.contiguous(array).reshape(-1).view(mx.uint8))
        buffer.data[:] = bytes_
        buffer.written[:] = 1
        return buffer

    def transposed(self, axes: tuple[int, ...]) -> "Buffer":
        """The same memory seen with its axes in another order."""
        return Buffer(
            tuple(self.shape[axis] for axis in axes),
            tuple(self.strides[axis] for axis in axes),
            self.dtype,
            self.data,
            self.written,
        )

    def broadcast(self, length: int) -> "Buffer":
        """A single element seen as many."""
        assert self.shape == (1,)
        return Buffer((length,), (0,), self.dtype, self.data, self.written)

    def row_contiguous(self) -> "Buffer":
        """This buffer, or a copy of it if its axes are in another order."""
        if self.strides == _row_contiguous_strides(self.shape):
            return self
        copy = Buffer.empty(self.shape, self.dtype)
        copy.data[:] = self._elements(self.data).reshape(-1)
        copy.written[:] = self._elements(self.written).reshape(-1)
        return copy

    @property
    def fully_written(self) -> bool:
        return bool(self.written.all())

    def array(self) -> mx.array:
        packed = self.row_contiguous()
        if packed.data.size == 0:
            return mx.zeros(self.shape, self.dtype)
        return mx.array(packed.data).view(self.dtype).reshape(self.shape)

    def numpy(self) -> np.ndarray:
        """The values, floating ones as float64."""
        array = self.array()
        if mx.issubdtype(array.dtype, mx.floating):
            return np.array(array.astype(mx.float32)).astype(np.float64)
        return np.array(array)

    def _elements(self, bytes_: np.ndarray) -> np.ndarray:
        """View of the bytes as (*shape, bytes per element)."""
        size = self.dtype.size
        return np.lib.stride_tricks.as_strided(
            bytes_,
            (*self.shape, size),
            (*(stride * size for stride in self.strides), 1),
        )


def _row_contiguous_strides(shape) -> tuple[int, ...]:
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))
