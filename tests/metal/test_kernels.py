# Every kernel of the library, as csrc/ops/gpu launches it: its text, and its results.

import itertools
import math
import re
from dataclasses import replace
from pathlib import Path

import ctc_on_emulator
import mlx.core as mx
import numpy as np
import pytest
from host_program import THREADGROUP_VARIABLE
from metal_text import without_comments
from problems import assert_gradient_close, assert_loss_close, random_problem
from static_check import names, problems
from translation_units import launches_with_texts

# Sizes that lead to each way of launching the kernels.
VARIANTS = {
    "a thread per frame": {"T": 30, "S": 3, "C": 4},
    "one simdgroup": {"T": 30, "S": 8, "C": 9},
    "two simdgroups": {"T": 60, "S": 40, "C": 30},
    "four simdgroups": {"T": 110, "S": 100, "C": 30},
    "classes over several simdgroups": {"T": 3, "S": 2, "C": 16400},
    "long rows of classes": {"T": 40, "S": 40, "C": 1100},
    "short segments in long targets": {"T": 20, "S": 900, "C": 30},
    "windows without a lane to spare": {"T": 90, "S": 64, "C": 30},
    "four rows side by side": {"T": 60, "S": 40, "C": 9},
}
BATCHES = [3, 9]  # lengths in constant memory, and in device memory


def run(
    emulator, sizes, dtype=mx.float32, edit=lambda launch: launch, blanks=(), **options
):
    """The kernels' texts, after a run that is compared with the reference.

    ``blanks`` are labels that equal the blank, as (sequence, place).
    """
    problem = random_problem(np.random.default_rng(7), **sizes, **options)
    for place in blanks:
        problem.targets[place] = problem.blank
    problem.target_lengths = np.minimum(problem.target_lengths, sizes["T"] - 2)
    run = ctc_on_emulator.run(emulator, problem, dtype, edit=edit)
    loss, gradient = problem.expected(dtype)
    assert_loss_close(run.loss, loss, dtype)
    assert_gradient_close(run.gradient, gradient, dtype)
    return run.texts()


def run_any_scores(emulator, sizes, dtype=mx.float32, edit=lambda launch: launch, N=3):
    """Scores that are not normalized, of which -inf excludes some, compared with the
    reference. Those of classes that no target has are NaN, since they are not read."""
    rng = np.random.default_rng(7)
    problem = random_problem(rng, N=N, with_logits=False, **sizes)
    problem.inputs = rng.normal(size=problem.inputs.shape)
    problem.inputs[::7, :, 1] = -np.inf
    problem.inputs[..., -1] = np.nan
    problem.targets = np.minimum(problem.targets, sizes["C"] - 2)
    problem.target_lengths = np.minimum(problem.target_lengths, sizes["T"] - 2)
    problem.normalized = False
    run = ctc_on_emulator.run(emulator, problem, dtype, edit=edit)
    loss, gradient = problem.expected(dtype)
    assert_loss_close(run.loss, loss, dtype)
    assert_gradient_close(run.gradient, gradient, dtype)
    assert not run.gradient[..., -1].any().item()
    for text in run.texts():
        assert problems(text) == []


@pytest.mark.parametrize("N", BATCHES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_kernels(emulator, variant, N, with_logits):
    for text in run(emulator, VARIANTS[variant], N=N, with_logits=with_logits):
        assert problems(text) == []


@pytest.mark.parametrize("N", BATCHES)
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_kernels_of_narrow_dtypes(emulator, dtype, N, with_logits):
    sizes = VARIANTS["two simdgroups"]
    for text in run(emulator, sizes, dtype, N=N, with_logits=with_logits):
        assert problems(text) == []


def test_a_batch_whose_tables_would_have_fewer_than_8_elements(emulator, with_logits):
    # MLX would pass them in constant memory (metal/tables.h).
    sizes = {"T": 3, "S": 1, "C": 2}
    for text in run(emulator, sizes, N=1, with_logits=with_logits):
        assert problems(text) == []


def test_more_windows_than_simdgroups(emulator, with_logits):
    sizes = {"T": 285, "S": 270, "C": 30}
    run(emulator, sizes, N=1, with_logits=with_logits, ragged=False)


@pytest.mark.parametrize("S", [200, 384, 600])
def test_a_last_round_of_few_windows_or_all(emulator, S):
    run(emulator, {"T": S + 15, "S": S, "C": 30}, N=1, ragged=False)


def launches_of_all_sizes():
    """(launch, sizes) of every kernel, for targets and rows of many lengths."""
    lengths = [*range(0, 700, 31), 1000, 2000, 4000, 7500]
    for S, C in itertools.product(lengths, [2, 30, 1100, 20000]):
        inputs = [
            mx.zeros((2 * S + 1, 3, C)),
            mx.zeros((3, S), mx.int32),
            *[mx.zeros(3, mx.int32)] * 2,
        ]
        for op in ctc_on_emulator.OPS:
            options = {"blank": 0, "with_logits": True}
            for launch in ctc_on_emulator.launches_of(inputs, op, **options):
                yield launch, (S, C)


def test_every_kernel_is_launched():
    texts = (Path(__file__).parents[2] / "metal").glob("*.metal")
    launched = {launch.name for launch, _ in launches_of_all_sizes()}
    assert launched == {f"ctc_{path.stem}" for path in texts}


def test_no_launch_has_more_threads_than_an_m1_can_have_with_128_registers():
    # Metal refuses a launch with more threads than it has registers for.
    for launch, sizes in launches_of_all_sizes():
        assert np.prod(launch.threadgroup) <= 384, (launch.name, sizes)


# Of the types of threadgroup variables.
BYTES = {
    "bool": 1,
    "int": 4,
    "uint": 4,
    "float": 4,
    "float2": 8,
    "int64_t": 8,
    "uint64_t": 8,
    "Scale": 8,
    "Wide": 12,
}


def threadgroup_bytes(launch):
    """The bytes of a kernel's threadgroup variables, each aligned to 16."""
    text = without_comments(launch.header + launch.source)
    constants = dict(re.findall(r"constexpr int (\w+) = ([^;?]+);", text))
    constants |= {name: str(value) for name, value in launch.template}

    def value(expression):
        names = re.sub(r"[a-zA-Z_]\w*", lambda n: value(constants[n[0]]), expression)
        return str(eval(names.replace("/", "//")))

    total = 0
    for variable in THREADGROUP_VARIABLE.finditer(text):
        extents = re.findall(r"\[([^\]]*)\]", variable["extents"])
        size = BYTES[variable["type"]] * math.prod(int(value(e)) for e in extents)
        total += -(-size // 16) * 16
    return total


def test_every_launch_has_the_threadgroup_memory_that_metal_gives():
    found = {}
    for launch, sizes in launches_of_all_sizes():
        used = threadgroup_bytes(launch)
        assert used <= 32768, (launch.name, sizes)
        found[launch.name] = max(used, found.get(launch.name, 0))
    assert found["ctc_gradient"] > 24 * 1024  # the sizes reach the greatest


def test_equal_texts_have_one_name():
    # By which MLX keeps what it has compiled.
    few, many = [
        {
            launch.name: text.text
            for launch, text in launches_with_texts(
                60, 9, C, 40, mx.float32, with_logits=False
            )
        }
        for C in (1000, 1100)
    ]
    assert few["ctc_scan"] == many["ctc_scan"]
    assert few.keys() == many.keys()


def test_a_result_that_nothing_writes_is_named(emulator):
    problem = random_problem(np.random.default_rng(7), T=0, N=3)
    problem.target_lengths[:] = 0
    says = r"forced_align: .* shape \(0, 3, 9\), .* alignments, scores"
    with pytest.raises(AssertionError, match=says):
        ctc_on_emulator.run(emulator, problem, op="forced_align")


def test_targets_in_parts(emulator, with_logits):
    sizes = {"T": 90, "S": 80, "C": 40}
    edit = ctc_on_emulator.in_parts_of(32)
    blanks = [(0, 3), (0, 40), (1, 70)]
    run(emulator, sizes, edit=edit, blanks=blanks, N=3, with_logits=with_logits)


def test_no_name_of_metals_library_is_taken_for_one_of_the_kernels():
    # MLX says `using namespace metal`, and each release of Metal adds names.
    kernels = launches_with_texts(30, 3, 9, 8, mx.float32, with_logits=True)
    for launch, metal in kernels:
        parameters = {name for _, name in metal.template_parameters}
        own = names(metal) - parameters - {metal.function}
        assert len(own) > 5
        added = "".join(f"struct {name}; " for name in sorted(own))
        text = f"namespace metal {{ {added}}} {metal.text}"
        assert problems(replace(metal, text=text)) == [], launch.name


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_of_scores_that_are_not_normalized(emulator, variant):
    run_any_scores(emulator, VARIANTS[variant], N=3)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_gradient_of_narrow_scores_that_are_not_normalized(emulator, dtype):
    run_any_scores(emulator, VARIANTS["two simdgroups"], dtype, N=9)


def test_gradient_in_parts_of_scores_that_are_not_normalized(emulator):
    sizes = {"T": 90, "S": 80, "C": 40}
    run_any_scores(emulator, sizes, edit=ctc_on_emulator.in_parts_of(32), N=3)
