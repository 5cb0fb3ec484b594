# What Apple's compiler would refuse, planted in a small correct kernel.

import re
from dataclasses import replace

import mlx.core as mx
import pytest
from metal_text import Launch, generate
from rows_kernel import HEADER, LAUNCH, X, edited
from static_check import problems

TOP = "  threadgroup float partial[2];\n"
MIDDLE = "  float total = 0.0f;\n"


def after(place, text):
    return edited(place, f"{place}  {text}\n")


def check(launch, *inputs):
    return "\n".join(problems(generate(launch, list(inputs) or [X])))


def test_the_kernel_without_a_fault_passes():
    assert check(LAUNCH) == ""


# name: (text to add after MIDDLE, what the report says)
FAULTS = {
    # Address spaces
    "threadgroup as device": ("device float* q = partial;", "__global.*__local"),
    "threadgroup as thread": ("thread float* q = partial;", "__private.*__local"),
    "cast between address spaces": (
        "threadgroup float* q = (threadgroup float*)y;",
        "mismatching address spaces",
    ),
    "pointer without an address space": (
        "float own; float* q = &own;",
        r"no address space in 'float\* q'",
    ),
    "reference without an address space": (
        "float& q = total;",
        "no address space in 'float& q'",
    ),
    "threadgroup variable in a block": (
        "if (i < 5) { threadgroup float q[4]; q[0] = total; }",
        "local address space",
    ),
    "threadgroup variable with a value": (
        "threadgroup float q = 1.0f;",
        "initializer",
    ),
    "write to an input": ("x[0] = 1.0f;", "read-only variable"),
    # Types
    "double": ("double q = total;", "double"),
    "double literal": ("total += 0.1;", "double"),
    "uninitialised variable": ("float q; total += q;", "uninitialized"),
    "array of variable length": ("float q[i];", "array size is not a constant"),
    "function pointer": (
        "float (*q)(float) = rest;",
        "function pointer|no address space",
    ),
    "braces after a vector's type": (
        "total += float2{total, 1.0f}.x;",
        "not known to compile",
    ),
    # Library
    "std": ("total += std::exp(total);", "'std'"),
    "maximum of unequal types": (
        "total += metal::max(i, 1);",
        "no matching function.*'max'",
    ),
    "exponential of an integer": (
        "total += metal::precise::exp(2);",
        "no matching function.*'exp'",
    ),
    "logarithm of either precision": (
        "total += metal::log(total);",
        "between metal::fast::log and metal::precise::log",
    ),
    "exponential of either precision, without its namespace": (
        "total += exp2(total);",
        "between metal::fast::exp2 and metal::precise::exp2",
    ),
    "shuffle of bool": (
        "total += metal::simd_shuffle_up(i > 4, 1);",
        "no matching function.*'simd_shuffle_up'",
    ),
    "shuffle of a 64-bit integer": (
        "total += float(metal::simd_shuffle_up(long(i), 1));",
        "no matching function.*'simd_shuffle_up'",
    ),
    "unknown attribute": (
        "total += float(thread_index_in_simd_group);",
        "undeclared identifier",
    ),
    "atomic": (
        "metal::atomic_fetch_add_explicit(y, 1.0f, metal::memory_order_relaxed);",
        "no member named 'atomic_fetch_add_explicit'",
    ),
    # Language
    "goto": ("goto end; end:;", "goto"),
    "lambda": ("auto q = [&](float a) { return a; };", "a lambda"),
    "new": ("thread float* q = new float[2];", "'default new'"),
    "throw": ("throw 1;", "exceptions|throw"),
    "dynamic_cast": ("dynamic_cast<thread float*>(&total);", "dynamic_cast"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_reported(name):
    text, report = FAULTS[name]
    found = check(after(MIDDLE, text))
    assert re.search(report, found)


HEADER_FAULTS = {
    "recursion": (
        "inline float q(float a) { return a > 1.0f ? q(a - 1.0f) : a; }",
        "recursion",
    ),
    "recursion in a template": (
        "template <typename T>\ninline T q(T a) { return a > T(1) ? q(a - T(1)) : a; }",
        "recursion",
    ),
    "recursion of two": (
        "float q(float a);\n"
        "inline float p(float a) { return q(a); }\n"
        "inline float q(float a) { return p(a); }",
        "recursion",
    ),
    "parameter without an address space": (
        "inline float q(const float* a) { return a[0]; }",
        r"no address space in 'const float\* a'",
    ),
    "parameter of a template without an address space": (
        "template <typename T>\ninline T q(T& a) { return a; }",
        "no address space in 'T& a'",
    ),
    "threadgroup variable in a helper": (
        "inline float q() { threadgroup float a[2]; return a[0]; }",
        "local address space",
    ),
    "global variable": ("float q = 1.0f;", "address space"),
    "virtual function": ("struct Q { virtual void f(); };", "virtual"),
    "name that MLX uses": ("struct Limits { int a; };", "a word of MLX's"),
}


@pytest.mark.parametrize("name", HEADER_FAULTS)
def test_a_fault_in_the_header_is_reported(name):
    text, report = HEADER_FAULTS[name]
    found = check(replace(LAUNCH, header=f"{text}\n{HEADER}"))
    assert re.search(report, found)


def test_structs_are_copied_as_in_metal():
    header = """
struct Item {
  float x;
  int i;
};
METAL_FUNC Item make(float x) {
  return Item{x, 1};
}
METAL_FUNC Item shifted(Item a, thread float& total) {
  total += a.x;
  if (a.i > 1) {
    return Item{a.x, a.i + 1};
  }
  return make(a.x);
}
METAL_FUNC float shifted(float a) {
  float total = 0.0f;
  return shifted(make(a), total).x + total;
}
"""
    launch = replace(after(MIDDLE, "total += shifted(total);"), header=header + HEADER)
    assert check(launch) == ""


def test_a_report_names_the_line():
    launch = after(MIDDLE, "double q = total;")
    text = generate(launch, [X]).text
    line = text[: text.index("double q")].count("\n") + 1
    assert f"line {line}: " in check(launch)


def test_threadgroup_memory_ends_at_32_kib():
    size = 32 * 1024 // 4 - 2 * 64 - 4  # what row and partial leave
    assert check(after(TOP, f"threadgroup float large[{size}];")) == ""
    found = check(after(TOP, f"threadgroup float large[{size + 1}];"))
    assert "32784 bytes of threadgroup memory, 32768 at most" in found


@pytest.mark.parametrize("count", [31, 32])
def test_there_are_31_buffers(count):
    inputs = [f"x{i}" for i in range(count - 1)]
    launch = Launch(
        name="many",
        input_names=inputs,
        output_names=["y"],
        output_shapes=[(32,)],
        output_dtypes=[mx.float32],
        source="  y[thread_index_in_simdgroup] = x0[0];\n",
    )
    found = check(launch, *[mx.zeros(8)] * len(inputs))
    assert found == ("" if count == 31 else "buffer index 31, 30 at most")


@pytest.mark.parametrize(("batch_size", "fits"), [(7, False), (8, True)])
def test_a_helper_that_takes_device_lengths_fails_for_small_batches(batch_size, fits):
    launch = Launch(
        name="lengths",
        input_names=["lengths"],
        output_names=["y"],
        output_shapes=[(32,)],
        output_dtypes=[mx.int32],
        header="METAL_FUNC int first(device const int* a) { return a[0]; }\n",
        source="  y[thread_index_in_simdgroup] = first(lengths);\n",
    )
    found = check(launch, mx.zeros(batch_size, mx.int32))
    assert ("no matching function" not in found) == fits
