# One kernel, compiled for the emulator, and how it is launched: the Python side of
# emulator/launch.cpp.

import ctypes
from dataclasses import dataclass

import mlx.core as mx
from buffer import Buffer
from host_program import as_host_program
from metal_text import Launch, MetalText
from toolchain import Toolchain, line_of_kernel


class KernelError(AssertionError):
    """A kernel did what Metal does not allow, or leaves undefined."""


@dataclass(frozen=True)
class Conditions:
    """How a run answers the questions that Metal leaves open."""

    schedule: int  # order in which threads run; 0 is ascending
    undefined_bits: int  # what a shuffle reads from a lane that does not exist
    open_choice: bool  # which argument max(x, NaN) gives


class CompiledKernel:
    def __init__(self, toolchain: Toolchain, metal: MetalText):
        self._parameters = [p for p in metal.parameters if p.buffer_index is not None]
        self._path = toolchain.kernel(as_host_program(metal))
        self._kernel = ctypes.CDLL(str(self._path)).emulated_kernel
        self._run = ctypes.CDLL(str(toolchain.emulator)).emulator_run
        self._run.restype = ctypes.c_bool

    def run(
        self,
        launch: Launch,
        inputs: dict[str, Buffer],
        outputs: dict[str, Buffer],
        conditions: Conditions,
    ):
        """One launch; the outputs are written in place."""
        buffers = [
            bound_to(parameter.name, inputs | outputs) for parameter in self._parameters
        ]
        arguments = [
            _Buffer(
                parameter.name.encode(),
                buffer.data.ctypes.data,
                buffer.written.ctypes.data,
                buffer.data.size,
                parameter.name in outputs,
            )
            for parameter, buffer in zip(self._parameters, buffers, strict=True)
        ]
        call = _Launch(
            ctypes.cast(self._kernel, ctypes.c_void_p),
            (_Buffer * len(arguments))(*arguments),
            len(arguments),
            launch.grid,
            launch.threadgroup,
            conditions.schedule,
            conditions.undefined_bits,
            conditions.open_choice,
        )
        report = _Report()
        if not self._run(ctypes.byref(call), ctypes.byref(report)):
            raise KernelError(f"{launch.name}: {self._explain(report)}")

    def _explain(self, report: "_Report") -> str:
        message = report.message.decode()
        if report.code_offset:
            line = line_of_kernel(self._path, report.code_offset)
            message += f" (line {line})" if line else ""
        return message


def bound_to(parameter: str, arrays: dict[str, Buffer]) -> Buffer:
    """What MLX binds to a parameter: an array, or a fact about one."""
    if parameter in arrays:
        return arrays[parameter]
    name, fact = parameter.rsplit("_", 1)
    array = arrays[name]
    if fact == "shape":
        return Buffer.of(mx.array(array.shape, mx.int32))
    if fact == "strides":
        return Buffer.of(mx.array(array.strides, mx.int64))
    return Buffer.of(mx.array(len(array.shape), mx.int32))


# The types that launch.cpp takes.


class _Buffer(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("initialised", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("writable", ctypes.c_uint32),
    ]


class _Launch(ctypes.Structure):
    _fields_ = [
        ("kernel", ctypes.c_void_p),
        ("buffers", ctypes.POINTER(_Buffer)),
        ("buffer_count", ctypes.c_uint32),
        ("grid", ctypes.c_uint32 * 3),
        ("threadgroup", ctypes.c_uint32 * 3),
        ("schedule", ctypes.c_uint32),
        ("undefined_bits", ctypes.c_uint32),
        ("open_choice", ctypes.c_bool),
    ]


class _Report(ctypes.Structure):
    _fields_ = [
        ("message", ctypes.c_char * 1024),
        ("code_offset", ctypes.c_uint64),
    ]
