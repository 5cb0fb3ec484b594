# Faults planted in a small correct kernel, one edit each: the emulator names them.
#
# Most of these edits do not change the result of a run on one CPU, and many would
# not on one GPU either. They are caught by what the kernel does, not by what comes
# out.

import mlx.core as mx
import pytest
from buffer import Buffer
from emulator import KernelError
from metal_text import generate
from rows_kernel import LAUNCH, X, edited

SYNC = "    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);\n"
EXCHANGE = "    row[turn][i] = value;\n" + SYNC
COLLECT = "    }\n" + SYNC + "    total"
RESULT = "  y[start + i] = combine(value, mirrored[0], left, total);\n"
SHUFFLE = "metal::simd_shuffle_up(value, 1)"


def run(emulator, launch):
    return emulator.run([launch], {"x": Buffer.of(X)}, launch.output_names)


def test_the_kernel_without_a_fault_is_right(emulator):
    left = mx.pad(X[:, :-1], [(0, 0), (1, 0)])
    expected = X + X[:, ::-1] + left + 2 * X.sum(axis=1, keepdims=True)
    assert mx.array_equal(run(emulator, LAUNCH)["y"].array(), expected)


# name: (text to replace, its replacement, what the report says)
FAULTS = {
    # Races, in threadgroup memory
    "no barrier": (
        EXCHANGE,
        EXCHANGE.removesuffix(SYNC),
        "(race|uninitialised).*'row'",
    ),
    "barrier for no memory": (
        EXCHANGE,
        EXCHANGE.replace("mem_threadgroup", "mem_none"),
        "race.*'row'",
    ),
    "barrier for device memory only": (
        EXCHANGE,
        EXCHANGE.replace("mem_threadgroup", "mem_device"),
        "race.*'row'",
    ),
    "barrier for one simdgroup": (
        EXCHANGE,
        EXCHANGE.replace("threadgroup_barrier", "simdgroup_barrier"),
        "race.*'row'",
    ),
    "written again while others still read": (
        COLLECT + " += partial[0] + partial[1];\n" + SYNC,
        COLLECT + " += partial[0] + partial[1];\n",
        "race.*writes.*'partial'.*read by",
    ),
    "every lane writes": ("if (lane == 0) {", "if (true) {", "race.*'partial'"),
    # Races, in device memory
    "reads a neighbour's result": (
        RESULT,
        RESULT + "  y[start + i] += i > 0 ? y[start + i - 1] : 0.0f;\n",
        "race.*'y'",
    ),
    "two threadgroups write one place": (
        RESULT,
        RESULT + "  if (i == 0) {\n    y[0] = total;\n  }\n",
        "race.*writes.*'y'.*of threadgroup 0",
    ),
    # Divergence
    "barrier in a branch": (
        EXCHANGE,
        EXCHANGE.replace("    metal::", "    if (i < 40) metal::"),
        "(divergent|race).*",
    ),
    "return before a barrier": (
        "  float total = 0.0f;\n",
        "  if (i > 60) {\n    return;\n  }\n  float total = 0.0f;\n",
        "divergent.*has returned",
    ),
    "loop of uneven length": (
        "for (uint turn = 0; turn < 2; turn++) {\n    row",
        "for (uint turn = 0; turn < (i == 63 ? 1 : 2); turn++) {\n    row",
        "divergent",
    ),
    "shuffle in a branch": (
        f"float left = {SHUFFLE};",
        f"float left = 0.0f;\n  if (i % 32 > 0) {{\n    left = {SHUFFLE};\n  }}",
        "divergent.*simd_shuffle_up",
    ),
    "shuffle in one arm of a condition": (
        f"float left = {SHUFFLE};",
        f"float left = lane > 0 ? {SHUFFLE} : 0.0f;",
        "divergent.*simd_shuffle_up",
    ),
    "one helper called from two branches": (
        RESULT,
        "  if (lane < 16) {\n    left = rest(left);\n  } else {\n"
        "    left = -rest(left);\n  }\n" + RESULT,
        "divergent.*simd_sum",
    ),
    "distance that differs by lane": (
        f"float left = {SHUFFLE};",
        "float left = metal::simd_shuffle_up(value, lane < 16 ? 1 : 2);",
        "not uniform.*simd_shuffle_up",
    ),
    # Outside of an array
    "threadgroup array overrun": (
        "partial[i / 32] = sum",
        "partial[i / 32 + 1] = sum",
        "undefined.*index past the end|out of bounds.*'partial'",
    ),
    "overrun into the next row of an array": (
        "row[turn][COLUMNS - 1 - i]",
        "row[turn][COLUMNS - i]",
        "undefined.*index past the end",
    ),
    "private array overrun": (
        "combine(value, mirrored[0]",
        "combine(value, mirrored[lane / 15]",
        "undefined.*index past the end",
    ),
    "input overrun": (
        "const float value = x[start + i]",
        "const float value = x[start + i + 1]",
        "out of bounds.*reads 4 bytes at byte 768 of 'x'",
    ),
    "read before an input": (
        "left = i == 0 ? 0.0f : x[start + i - 1];",
        "left = x[int(start + i) - 1];",
        "out of bounds.*byte -4 of 'x'",
    ),
    "output overrun": (
        "y[start + i] =",
        "y[start + i + 64] =",
        "out of bounds.*writes 4 bytes at byte 768 of 'y'",
    ),
    "overrun by a gigabyte": (
        "const float value = x[start + i]",
        "const float value = x[start + i + (1 << 28)]",
        "out of bounds.*'x'",
    ),
    "write to an input": (
        RESULT,
        RESULT + "  ((device float*)x)[start + i] = 0.0f;\n",
        "write to an input.*'x'",
    ),
    # No value there
    "threadgroup memory nobody wrote": (
        "    if (lane == 0) {",
        "    if (i == 0) {",
        "uninitialised.*'partial'",
    ),
    "output added to": (
        "y[start + i] =",
        "y[start + i] +=",
        "uninitialised.*'y'",
    ),
    "output with a gap": (
        RESULT,
        "  if (start + i != 100) {\n  " + RESULT + "  }\n",
        "uninitialised: 'y' is not written in full",
    ),
    "lane below the first": (
        "  if (i % 32 == 0) {",
        "  if (i == 0) {",
        "undefined: 'y' depends",
    ),
    "maximum of NaN": (
        RESULT,
        "  const float nan = metal::numeric_limits<float>::quiet_NaN();\n"
        "  left = metal::max(left, lane == 3 ? nan : 0.0f);\n" + RESULT,
        "undefined: 'y' depends",
    ),
    # Integers
    "integer overflow": (
        RESULT,
        "  const int large = 0x7fffffff - 40 + int(i);\n"
        "  left += float(large);\n" + RESULT,
        "undefined.*overflow",
    ),
    "shift by the width": (
        RESULT,
        "  left += float(1u << (i / 2 + 1));\n" + RESULT,
        "undefined.*shift",
    ),
    "division by zero": (
        RESULT,
        "  left += float(100 / int(i));\n" + RESULT,
        "undefined.*division",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_reported(emulator, name):
    old, new, report = FAULTS[name]
    with pytest.raises(KernelError, match=report):
        run(emulator, edited(old, new))


def test_a_report_names_kernel_and_line(emulator):
    launch = edited("const float value = x[start + i]", "const float value = x[999]")
    text = generate(launch, [X]).text
    line = text[: text.index("x[999]")].count("\n") + 1
    with pytest.raises(KernelError, match=rf"^rows: .*\(line {line}\)$"):
        run(emulator, launch)


def test_an_error_of_the_compiler_shows_the_line(emulator):
    launch = edited("const float value = x[start + i]", "const float value = absent")
    shown = r"kernel\.metal:\d+:.*\n    const float value = absent;"
    with pytest.raises(RuntimeError, match=shown):
        run(emulator, launch)
