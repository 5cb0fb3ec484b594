# Checks a Metal kernel's text without running it, and without Apple's compiler.
#
# Clang's "C++ for OpenCL" has Metal's address spaces and most of Metal's
# restrictions. With Metal's words defined as its own (static_check/metal_stdlib.h),
# its front end, which comes as the PyPI package libclang, finds in milliseconds what
# would fail to compile on a Mac. A walk over the syntax tree adds Metal's rules that
# OpenCL does not have.

import functools
import re
from pathlib import Path

import clang.cindex
import mlx.core as mx
from clang.cindex import CursorKind, TypeKind
from metal_text import MetalText, without_comments

FILE = "kernel.metal"
LIBRARY = Path(__file__).parent / "static_check"
FLAGS = [
    "-x",
    "clcpp",
    "-cl-std=clc++2021",
    "-target",
    "nvptx64-nvidia-cuda",  # a target that has half and bfloat
    "-cl-no-stdinc",
    f"-I{LIBRARY}",
    "-include",
    "metal_stdlib.h",
    # No doubles and no 64-bit atomics. Of the address space that stands for all
    # of them, which Clang needs to copy structs, the rule on pointers keeps us clear.
    "-Xclang",
    "-cl-ext=-all,+cl_khr_fp16,+__opencl_c_generic_address_space",
    "-Wall",
    "-Wno-unused",
    "-Wno-unknown-attributes",  # [[buffer(0)]]
    "-Wconditional-uninitialized",
]

MAX_BUFFER_INDEX = 30
MAX_THREADGROUP_BYTES = 32 << 10
ADDRESS_SPACES = {"device", "constant", "threadgroup", "thread"}
DECLARATIONS = (CursorKind.PARM_DECL, CursorKind.VAR_DECL, CursorKind.FIELD_DECL)
FUNCTIONS = (CursorKind.FUNCTION_DECL, CursorKind.FUNCTION_TEMPLATE)
INDIRECT = (TypeKind.POINTER, TypeKind.LVALUEREFERENCE, TypeKind.RVALUEREFERENCE)


def problems(metal: MetalText) -> list[str]:
    """What Apple's compiler or Metal would refuse, each with its line."""
    text = as_opencl(metal)
    unit, tops = _parse(text)
    found = [f"line {d.location.line}: {d.spelling}" for d in unit.diagnostics]
    nodes = [Node(cursor, text) for top in tops for cursor in top.walk_preorder()]
    for rule in RULES:
        found += rule(nodes)
    return found + _buffer_indices(metal) + _names_of_mlx(metal, tops)


def names(metal: MetalText) -> set[str]:
    """All that the text declares outside of functions and classes."""
    return {c.spelling for c in _parse(as_opencl(metal))[1]}


def _parse(text):
    """Clang's unit, and the cursors of what the text declares in its namespaces."""
    unit = clang.cindex.Index.create().parse(
        FILE, args=FLAGS, unsaved_files=[(FILE, text)]
    )
    tops = []
    for cursor in unit.cursor.get_children():
        if str(cursor.location.file) == FILE:
            is_namespace = cursor.kind == CursorKind.NAMESPACE
            tops += cursor.get_children() if is_namespace else [cursor]
    return unit, tops


class Node:
    """A node of the syntax tree and the words it was written with."""

    def __init__(self, cursor, text):
        self.cursor = cursor
        self.kind = cursor.kind
        self.type = cursor.type
        self.line = f"line {cursor.location.line}"
        start, end = cursor.extent.start.offset, cursor.extent.end.offset
        self.written = text.encode()[start:end].decode()

    @property
    def declaration(self) -> str:
        """What a declaration says before its initialiser."""
        return self.written.split("=")[0]

    @property
    def is_indirect(self) -> bool:
        """Whether it declares a pointer or a reference (or an ``auto`` one)."""
        without_extents = re.sub(r"\[.*\]", "", self.declaration)
        return self.type.kind in INDIRECT or bool({"*", "&"} & set(without_extents))

    @property
    def address_spaces(self) -> set[str]:
        return ADDRESS_SPACES & set(re.findall(r"\w+", self.declaration))


def as_opencl(metal: MetalText) -> str:
    """The kernel's one instantiation as an OpenCL kernel, every line where it was."""
    definitions = "".join(
        f"typedef {value} {name}; "
        if kind == "typename"
        else f"constant constexpr {kind} {name} = {value}; "
        for (kind, name), value in zip(
            metal.template_parameters, metal.template_arguments, strict=True
        )
    )
    head = re.compile(
        rf"^(?:template <.*>(\n))?\[\[kernel\]\] void (?={metal.function}\()", re.M
    )
    text = re.sub(r"^template \[\[host_name.*$", "", metal.text, flags=re.M)
    return head.sub(lambda m: f"{definitions}{m[1] or ''}__kernel void ", text)


# Metal's rules that OpenCL does not have: each takes all nodes of the tree --------


def _no_goto_or_lambda(nodes):
    names = {
        CursorKind.GOTO_STMT: "goto",
        CursorKind.INDIRECT_GOTO_STMT: "goto",
        CursorKind.LAMBDA_EXPR: "a lambda",
    }
    return [f"{n.line}: {names[n.kind]}" for n in nodes if n.kind in names]


def _pointers_name_their_address_space(nodes):
    return [
        f"{n.line}: no address space in '{n.declaration.strip()}'"
        for n in nodes
        if n.kind in DECLARATIONS and n.is_indirect and not n.address_spaces
    ]


def _no_recursion(nodes):
    functions = [n.cursor for n in nodes if n.kind in FUNCTIONS]

    def called_by(function):
        for inner in function.walk_preorder():
            if inner.kind == CursorKind.DECL_REF_EXPR and inner.referenced:
                yield inner.referenced.get_usr()
            elif inner.kind == CursorKind.OVERLOADED_DECL_REF:
                # Inside a template, where the call is not resolved yet.
                yield from (
                    f.get_usr() for f in functions if f.spelling == inner.spelling
                )

    calls = {}
    for function in functions:
        calls.setdefault(function.get_usr(), set()).update(called_by(function))

    def reachable(name, seen):
        for callee in calls.get(name, set()) - seen:
            seen.add(callee)
            reachable(callee, seen)
        return seen

    return [
        f"line {f.location.line}: recursion in '{f.spelling}'"
        for f in functions
        if f.get_usr() in reachable(f.get_usr(), set())
    ]


def _no_type_before_the_braces_of_a_vector(nodes):
    # Metal's documentation has uint4(...), which CUDA has not. MLX's own kernels have
    # uint4 a = {...}, so that is known to work on both.
    return [
        f"{n.line}: '{n.written}', which is not known to compile for Metal"
        for n in nodes
        if n.kind == CursorKind.CXX_FUNCTIONAL_CAST_EXPR
        and re.fullmatch(r"\w+[234]\s*\{.*\}", n.written, re.DOTALL)
    ]


def _threadgroup_memory(nodes):
    sizes = [
        n.type.get_size()
        for n in nodes
        if n.kind == CursorKind.VAR_DECL
        and not n.is_indirect
        and "threadgroup" in n.address_spaces
    ]
    total = sum((size + 15) // 16 * 16 for size in sizes)
    if total > MAX_THREADGROUP_BYTES:
        return [f"{total} bytes of threadgroup memory, {MAX_THREADGROUP_BYTES} at most"]
    return []


RULES = [
    _no_goto_or_lambda,
    _pointers_name_their_address_space,
    _no_recursion,
    _no_type_before_the_braces_of_a_vector,
    _threadgroup_memory,
]


def _buffer_indices(metal):
    indices = [p.buffer_index for p in metal.parameters if p.buffer_index is not None]
    if max(indices) > MAX_BUFFER_INDEX:
        return [f"buffer index {max(indices)}, {MAX_BUFFER_INDEX} at most"]
    return []


def _names_of_mlx(metal, tops):
    # MLX puts its own helpers, macros among them, before the text.
    own = {name for _, name in metal.template_parameters}
    return [
        f"line {c.location.line}: '{c.spelling}' is a word of MLX's own Metal helpers"
        for c in tops
        if c.spelling in _mlx_words() - own
    ]


@functools.cache
def _mlx_words():
    folder = Path(mx.__file__).parent / "include/mlx/backend/metal/kernels"
    words = set()
    for header in ["bf16", "bf16_math", "complex", "defines", "logging", "utils"]:
        text = without_comments((folder / f"{header}.h").read_text())
        words.update(re.findall(r"\w+", text))
    return words
