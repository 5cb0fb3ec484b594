# Runs Metal kernels on the CPU and checks everything that they do: see README.md.

from pathlib import Path

import mlx.core as mx
import numpy as np
from buffer import Buffer
from compiled_kernel import CompiledKernel, Conditions, KernelError
from metal_text import Launch, generate
from toolchain import Toolchain

__all__ = ["Emulator", "KernelError"]

# As floats the undefined bits are NaN and 1e30.
CONDITIONS = [
    Conditions(schedule=0, undefined_bits=0x7FC0DEAD, open_choice=False),
    Conditions(schedule=1, undefined_bits=0x7149F2CA, open_choice=True),
]


class Emulator:
    def __init__(self, cache: Path):
        """Keeps compiled kernels in the folder ``cache``."""
        self._toolchain = Toolchain(cache)
        self._kernels = {}

    def run(
        self,
        launches: list[Launch],
        arrays: dict[str, Buffer],
        results: list[str],
    ) -> dict[str, Buffer]:
        """Runs launches one after the other, chained by the names of their arrays.

        They are run under each of ``CONDITIONS``, and the named results have to be
        written in full and to come out with the same bits.

        Returns:
            All arrays, those that the launches wrote included.

        Raises:
            KernelError: what went wrong, in which kernel, at which line.
        """
        first, second = (
            self._run_under(conditions, launches, arrays) for conditions in CONDITIONS
        )
        for name in results:
            if not first[name].fully_written:
                raise KernelError(f"uninitialised: '{name}' is not written in full")
            if not same_values(first[name], second[name]):
                raise KernelError(
                    f"undefined: '{name}' depends on the order of threads or on "
                    "a value that Metal leaves undefined"
                )
        return first

    def _run_under(self, conditions, launches, arrays):
        arrays = dict(arrays)
        for launch in launches:
            passed = [arrays[name] for name in launch.arrays or launch.input_names]
            inputs = dict(zip(launch.input_names, passed, strict=True))
            if launch.ensure_row_contiguous:
                inputs = {name: x.row_contiguous() for name, x in inputs.items()}
            outputs = {
                name: Buffer.empty(shape, dtype)
                for name, shape, dtype in zip(
                    launch.output_names,
                    launch.output_shapes,
                    launch.output_dtypes,
                    strict=True,
                )
            }
            kernel = self._compiled(launch, inputs)
            kernel.run(launch, inputs, outputs, conditions)
            arrays |= outputs
        return arrays

    def _compiled(self, launch, inputs) -> CompiledKernel:
        arrays = [mx.zeros(x.shape, x.dtype) for x in inputs.values()]
        metal = generate(launch, arrays)
        if metal.text not in self._kernels:
            self._kernels[metal.text] = CompiledKernel(self._toolchain, metal)
        return self._kernels[metal.text]


def same_values(a: Buffer, b: Buffer) -> bool:
    """Bit for bit, but a NaN equals any other."""
    differ = a.data.reshape(-1, a.dtype.size) != b.data.reshape(-1, b.dtype.size)
    if not mx.issubdtype(a.dtype, mx.floating):
        return not differ.any()
    both_nan = np.isnan(a.numpy()) & np.isnan(b.numpy())
    return not (differ.any(axis=1) & ~both_nan.reshape(-1)).any()
