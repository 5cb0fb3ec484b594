"""Runs a Metal kernel on the CPU and checks everything that it does.

The kernel's text is compiled as C++ against a Metal library of our own
(``emulator/msl``) and run by ``emulator/``: one fiber per GPU thread, every access
to memory and every meeting of threads checked. ``emulator/README.md`` tells how.

Needs g++ (12 or later) or clang++ (16 or later) on Linux.
"""

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
from buffer import Buffer
from metal_text import Launch, MetalText, generate, without_comments

NATIVE = Path(__file__).parent / "emulator"

# The compiler reports each access and each undefined operation to the emulator
# (sanitizer_callbacks.cpp). No optimisation: what the text says is what happens.
# No contraction: a product is rounded before it is added to something.
KERNEL_FLAGS = [
    "-std=c++20",
    "-g",
    "-O0",
    "-fPIC",
    "-fsanitize=thread",
    "-fsanitize=signed-integer-overflow,integer-divide-by-zero,shift,bounds",
    "-ffp-contract=off",
    "-ftrivial-auto-var-init=pattern",
    "-Wno-attributes",
    "-Wno-unknown-attributes",
]
# Fortified jumps refuse to go from one stack to another.
EMULATOR_FLAGS = ["-std=c++20", "-O2", "-fPIC", "-U_FORTIFY_SOURCE"]


class KernelError(AssertionError):
    """A kernel did what Metal does not allow, or leaves undefined."""


@dataclass(frozen=True)
class Conditions:
    """How a run answers the questions that Metal leaves open."""

    schedule: int  # order in which threads run; 0 is ascending
    undefined_bits: int  # what a shuffle reads from a lane that does not exist
    open_choice: bool  # which argument max(x, NaN) gives


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

        Everything is run under each of ``CONDITIONS``, and the named results have
        to come out with the same bits.

        Raises:
            KernelError: what went wrong, in which kernel, at which line.
        """
        outcomes = [
            self._run_under(conditions, launches, arrays) for conditions in CONDITIONS
        ]
        for name in results:
            first, second = (outcome[name] for outcome in outcomes)
            if not first.fully_written:
                raise KernelError(f"uninitialised: '{name}' is not written in full")
            if not _same_values(first, second):
                raise KernelError(
                    f"undefined: '{name}' depends on the order of threads or on "
                    "a value that Metal leaves undefined"
                )
        return {name: outcomes[0][name] for name in results}

    def _run_under(self, conditions, launches, arrays):
        arrays = dict(arrays)
        for launch in launches:
            inputs = {name: arrays[name] for name in launch.inputs}
            arrays |= self._launch(launch, inputs, conditions)
        return arrays

    def _launch(self, launch, inputs, conditions):
        if launch.ensure_row_contiguous:
            inputs = {name: x.row_contiguous() for name, x in inputs.items()}
        metal = generate(launch, [mx.zeros(x.shape, x.dtype) for x in inputs.values()])
        outputs = {}
        for name, shape, dtype in zip(
            launch.outputs, launch.output_shapes, launch.output_dtypes, strict=True
        ):
            outputs[name] = (
                Buffer.empty(shape, dtype)
                if launch.init_value is None
                else Buffer.of(mx.full(shape, launch.init_value, dtype))
            )
        if metal.text not in self._kernels:
            self._kernels[metal.text] = CompiledKernel(self._toolchain, metal)
        try:
            self._kernels[metal.text].run(launch, inputs, outputs, conditions)
        except KernelError as fault:
            raise KernelError(f"{launch.name}: {fault}") from None
        return outputs


def _same_values(a: Buffer, b: Buffer) -> bool:
    """Bit for bit; a NaN equals any other."""
    if mx.issubdtype(a.dtype, mx.floating):
        same = np.array_equal(a.numpy(), b.numpy(), equal_nan=True)
        return same and np.array_equal(np.signbit(a.numpy()), np.signbit(b.numpy()))
    return np.array_equal(a.data, b.data)


class Toolchain:
    """The host compiler, and the folder where its results are kept."""

    def __init__(self, cache: Path):
        candidates = [os.environ.get("CXX"), "g++", "clang++"]
        self.compiler = next(filter(shutil.which, filter(None, candidates)))
        self.cache = cache
        version = self._call([self.compiler, "--version"])
        sources = sorted(p for p in NATIVE.rglob("*") if p.is_file())
        self._key = version + "".join(p.read_text() for p in sources)

    def shared_library(self, sources: dict[str, str], flags, link) -> Path:
        """Compiles C++ texts, by name, or takes the library from the cache."""
        key = "\0".join([self._key, *sources, *sources.values(), *flags, *link])
        library = self.cache / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.so"
        if not library.exists():
            with tempfile.TemporaryDirectory(dir=self.cache) as folder:
                objects = []
                for name, text in sources.items():
                    source = Path(folder, name)
                    source.write_text(text)
                    objects.append(f"{source}.o")
                    include = [f"-I{NATIVE}", f"-I{NATIVE / 'msl'}"]
                    output = ["-o", objects[-1]]
                    self._call(
                        [self.compiler, *flags, *include, "-c", str(source), *output]
                    )
                # Linked without the sanitizers' flags: no runtime of theirs.
                unfinished = Path(folder, "library.so")
                output = ["-o", str(unfinished)]
                self._call([self.compiler, "-shared", *objects, *link, *output])
                unfinished.rename(library)
        return library

    @functools.cached_property
    def emulator(self) -> ctypes.CDLL:
        return ctypes.CDLL(str(self.emulator_path))

    @functools.cached_property
    def emulator_path(self) -> Path:
        sources = {p.name: p.read_text() for p in sorted(NATIVE.glob("*.cpp"))}
        return self.shared_library(sources, EMULATOR_FLAGS, link=[])

    def line_of(self, library: Path, offset: int) -> str:
        """The line of the kernel whose machine code is at an offset."""
        command = ["addr2line", "-i", "-e", str(library), hex(offset - 1)]
        line = re.search(r"kernel\.metal:(\d+)", self._call(command))
        return f" (line {line[1]})" if line else ""

    @staticmethod
    def _call(command: list[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
        return done.stdout


class CompiledKernel:
    def __init__(self, toolchain: Toolchain, metal: MetalText):
        self._toolchain = toolchain
        self._parameters = metal.parameters
        self._path = toolchain.shared_library(
            {"kernel.cpp": as_host_program(metal)},
            KERNEL_FLAGS,
            link=[str(toolchain.emulator_path), "-lm"],
        )
        self._library = ctypes.CDLL(str(self._path))

    def run(
        self,
        launch: Launch,
        inputs: dict[str, Buffer],
        outputs: dict[str, Buffer],
        conditions: Conditions,
    ):
        """One launch; the outputs are written in place."""
        buffers = [
            _argument(parameter.name, inputs, outputs)
            for parameter in self._parameters
            if parameter.buffer_index is not None
        ]
        arguments = (_Buffer * len(buffers))(
            *(
                _Buffer(
                    name.encode(),
                    buffer.data.ctypes.data,
                    buffer.written.ctypes.data,
                    buffer.data.size,
                    name in outputs,
                )
                for name, buffer in buffers
            )
        )
        call = _Launch(
            ctypes.cast(self._library.emulated_kernel, ctypes.c_void_p),
            arguments,
            len(buffers),
            launch.grid,
            launch.threadgroup,
            conditions.schedule,
            conditions.undefined_bits,
            conditions.open_choice,
        )
        report = _Report()
        run = self._toolchain.emulator.emulator_run
        run.restype = ctypes.c_bool
        if not run(ctypes.byref(call), ctypes.byref(report)):
            message = report.message.decode()
            if report.code_offset:
                message += self._toolchain.line_of(self._path, report.code_offset)
            raise KernelError(message)


def _argument(name, inputs, outputs) -> tuple[str, Buffer]:
    """What MLX binds to a parameter: an array, or a fact about an input."""
    if name in inputs or name in outputs:
        return name, (inputs | outputs)[name]
    of, fact = name.rsplit("_", 1)
    array = inputs[of]
    value = {
        "shape": mx.array(array.shape, mx.int32),
        "strides": mx.array(array.strides, mx.int64),
        "ndim": mx.array(len(array.shape), mx.int32),
    }[fact]
    return name, Buffer.of(value)


# The kernel's text as C++ ---------------------------------------------------

_INSTANTIATION = re.compile(r"^template \[\[host_name.*$", re.MULTILINE)
_THREADGROUP_VARIABLE = re.compile(
    r"\bthreadgroup\s+(?P<type>[\w:]+(?:<[^<>;]*>)?)\s+(?P<name>\w+)\s*"
    r"(?P<extents>(?:\[[^\]]*\]\s*)*);"
)
_OTHER_THREADGROUP_VARIABLE = re.compile(
    r"\bthreadgroup\s+[\w:]+(?:<[^<>;]*>)?\s+\w+\s*[\[=,;{].*"
)


def as_host_program(metal: MetalText) -> str:
    """The kernel as C++, every line where it was, and a way to call it."""
    text = _INSTANTIATION.sub("", without_comments(metal.text))
    text = _THREADGROUP_VARIABLE.sub(
        r"auto& \g<name> = emulator::threadgroup_array<\g<type>\g<extents>>"
        r'("\g<name>");',
        text,
    )
    if match := _OTHER_THREADGROUP_VARIABLE.search(text):
        raise ValueError(
            "A threadgroup variable has a statement of its own and no initialiser, "
            f"but got: {match[0]}"
        )
    function = metal.function
    if metal.template_arguments:
        function += f"<{', '.join(metal.template_arguments)}>"
    return "\n".join(
        [
            "#include <metal_stdlib.h>",
            '#line 1 "kernel.metal"',
            text,
            'extern "C" __attribute__((no_sanitize("thread"))) void emulated_kernel(',
            "    void* const* buffers, const emulator::ThreadAttributes& self) {",
            f"  {function}({', '.join(map(_value_of, metal.parameters))});",
            "}",
        ]
    )


def _value_of(parameter) -> str:
    """What the host program passes for a parameter."""
    index = parameter.buffer_index
    if index is None:
        return f"emulator::attribute(self.{parameter.attribute})"
    pointer = f"static_cast<{parameter.type.rstrip('&*')}*>(buffers[{index}])"
    return f"*{pointer}" if parameter.type.endswith("&") else pointer


# The types that launch.cpp takes --------------------------------------------


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
