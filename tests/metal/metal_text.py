# The Metal text of a launch, exactly as MLX's own generator writes it.
#
# MLX wraps a kernel's body in a signature that depends on the arrays it is called
# with: an input of fewer than 8 elements is passed as constant, a larger one as
# device; shapes and strides appear only if the body names them. A checker that
# wrote this signature itself would check a guess. MLX's Linux build has the generator
# too, and runs it while a function is traced for export, so the text is asked from it.

import os
import re
import sys
import tempfile
from dataclasses import dataclass

import mlx.core as mx


@dataclass(frozen=True)
class Launch:
    """One kernel launch: what ``mx.fast.metal_kernel`` and its call are given.

    Inputs and outputs have the names of the kernel's parameters; ``grid`` counts
    threads, as in MLX. An input is passed the array of its own name, unless
    ``arrays`` names others.
    """

    name: str
    input_names: list[str]
    output_names: list[str]
    output_shapes: list[tuple[int, ...]]
    output_dtypes: list[mx.Dtype]
    source: str
    header: str = ""
    template: list[tuple[str, int | bool | mx.Dtype]] = ()
    grid: tuple[int, int, int] = (32, 1, 1)
    threadgroup: tuple[int, int, int] = (32, 1, 1)
    ensure_row_contiguous: bool = True
    arrays: list[str] | None = None
    options: list[int] = ()  # of the array "options", if the kernel has it


@dataclass(frozen=True)
class Parameter:
    """One parameter of the generated signature."""

    type: str  # "const device float*"
    name: str  # "log_probs"
    attribute: str  # "buffer(0)", "thread_index_in_simdgroup"

    @property
    def buffer_index(self) -> int | None:
        match = re.fullmatch(r"buffer\((\d+)\)", self.attribute)
        return int(match[1]) if match else None

    @property
    def is_output(self) -> bool:
        return self.buffer_index is not None and not self.type.startswith("const")


@dataclass(frozen=True)
class MetalText:
    """A generated kernel: its text and what its signature says."""

    text: str
    function: str  # the name MLX gave the kernel function
    template_parameters: list[tuple[str, str]]  # [("typename", "T"), ("int", "N")]
    template_arguments: list[str]  # ["float", "4"]
    parameters: list[Parameter]


def generate(launch: Launch, inputs: list[mx.array]) -> MetalText:
    """What MLX would hand to Apple's compiler for this launch on these arrays."""
    kernel = mx.fast.metal_kernel(
        name=launch.name,
        input_names=launch.input_names,
        output_names=launch.output_names,
        source=launch.source,
        header=launch.header,
        ensure_row_contiguous=launch.ensure_row_contiguous,
    )

    def call(*arrays):
        return kernel(
            inputs=list(arrays),
            template=list(launch.template),
            grid=launch.grid,
            threadgroup=launch.threadgroup,
            output_shapes=launch.output_shapes,
            output_dtypes=launch.output_dtypes,
            verbose=True,
        )

    with tempfile.TemporaryDirectory() as folder:
        printed = _standard_output_of(
            lambda: mx.export_function(os.path.join(folder, "f"), call, *inputs)
        )
    return parse(printed.split("```\n", 1)[1].rsplit("\n```", 1)[0])


def _standard_output_of(function) -> str:
    """What a function prints, C++ streams included."""
    with tempfile.TemporaryFile() as file:
        sys.stdout.flush()
        saved = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            function()
        finally:
            os.dup2(saved, 1)
            os.close(saved)
        file.seek(0)
        return file.read().decode()


# The shapes of the lines that MLX's generator writes (metal_kernel.cpp).
_FUNCTION = re.compile(
    r"^(?:template <(?P<template>[^>]*)>\n)?"
    r"\[\[kernel\]\] void (?P<function>\w+)\(\n"
    r"(?P<parameters>(?:  .*\]\](?:,|\) \{)\n)+)",
    re.MULTILINE,
)
_PARAMETER = re.compile(r"  (.*[\s&*])(\w+) \[\[(.*)\]\](?:,|\) \{)")
_INSTANTIATION = re.compile(
    r"^template \[\[host_name\(\"\w+\"\)\]\] \[\[kernel\]\] "
    r"decltype\(\w+<(.*)>\) \w+<.*>;$",
    re.MULTILINE,
)


def parse(text: str) -> MetalText:
    function = _FUNCTION.search(text)
    if not function or function["parameters"].count(") {\n") != 1:
        raise ValueError(
            "MLX wrote no well-formed signature. (It closes the parameter list one "
            "output early if the body names shapes but no thread attribute.)\n" + text
        )
    instantiation = _INSTANTIATION.search(text)
    return MetalText(
        text=text,
        function=function["function"],
        template_parameters=[
            tuple(parameter.split())
            for parameter in (function["template"] or "").split(", ")
            if parameter
        ],
        template_arguments=instantiation[1].split(", ") if instantiation else [],
        parameters=[
            Parameter(kind.strip(), name, attribute)
            for kind, name, attribute in _PARAMETER.findall(function["parameters"])
        ],
    )


def without_comments(text: str) -> str:
    """The text with comments blanked and every line where it was."""
    text = re.sub(
        r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.DOTALL
    )
    return re.sub(r"//[^\n]*", "", text)
