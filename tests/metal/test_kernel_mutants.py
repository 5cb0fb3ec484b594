# The library's kernels with one thing wrong: each such mutant is noticed.
#
# The mutants are made from whatever the kernels' text is, their helpers included: every
# barrier is taken out or weakened, every store to shared memory left out, a thread made
# to return before every barrier. So the tests say that nothing of this is in the text
# without need.

import re
from dataclasses import replace
from functools import partial

import ctc_on_emulator
import exact
import mlx.core as mx
import numpy as np
import pytest
from metal_text import without_comments
from problems import random_problem

BARRIER = re.compile(r"metal::(threadgroup|simdgroup)_barrier\(([^;]*)\);")


class Case:
    """An op on a problem. What its kernels give unedited is right by other tests."""

    def __init__(self, op="ctc_loss", N=3, edit=lambda launch: launch, **sizes):
        self.op = op
        self.problem = random_problem(np.random.default_rng(11), N=N, **sizes)
        self.edit = edit
        self.absolute = 1e-6  # what may differ
        self._expected = None

    def run(self, emulator, edit=lambda launch: launch):
        run = ctc_on_emulator.run(
            emulator,
            self.problem,
            op=self.op,
            edit=lambda launch: edit(self.edit(launch)),
        )
        return {n: run.arrays[n].numpy() for n in ctc_on_emulator.RESULTS[self.op]}

    def check(self, emulator, edit):
        if self._expected is None:
            self._expected = self.run(emulator)
        results = self.run(emulator, edit)
        for name, expected in self._expected.items():
            np.testing.assert_allclose(results[name], expected, 1e-5, self.absolute)


def spoilt(case):
    """The case with NaN in a late frame, in a class that the target does not use."""
    inputs, targets = case.problem.inputs, case.problem.targets
    unused = set(range(inputs.shape[2])) - {case.problem.blank, *targets[1]}
    inputs[40, 1, unused.pop()] = np.nan
    return case


def spoilt_label(case):
    """The case with NaN for a label in the second window."""
    inputs, targets = case.problem.inputs, case.problem.targets
    inputs[40, 1, targets[1, 35]] = np.nan
    return case


def sharp(case):
    """The case with scores so far apart that floats do not hold the recursion."""
    case.problem.inputs *= 10
    return case


def far(case):
    """The case with a label that is 2^-512 as probable in one frame, which the 9 bits
    above a float's mantissa cannot tell from 1."""
    problem = case.problem
    for n, target in enumerate(problem.targets):
        t = problem.input_lengths[n] // 2
        label = target[problem.target_lengths[n] // 2]
        problem.inputs[t, n, label] -= 512 * np.log(2)
    return case


def confident(case, margin=6, blanks=True):
    """The case with a model that is right in each frame."""
    T, _, C = case.problem.inputs.shape
    S = case.problem.targets.shape[1]
    rng = np.random.default_rng(11)
    with_logits = case.problem.with_logits
    case.problem = exact.confident(rng, T, C, S, margin, with_logits, blanks=blanks)
    return case


def certain(case):
    """The case with a model whose gradient is far below the rounding of 1."""
    case.absolute = 1e-12
    return confident(case, margin=14, blanks=False)


IN_PARTS = ctc_on_emulator.in_parts_of(32)
# Between them, all code of each kernel is run.
CASES = {
    "ctc_normalisers": [
        Case(T=3, S=2, C=16400, ragged=False),
        Case(T=11, S=2, C=5),
        Case(T=11, S=2, C=150),
    ],
    "ctc_scan": [
        spoilt(Case(T=90, S=40, C=60)),
        sharp(Case(T=90, S=40, C=60)),
        spoilt_label(Case(T=90, S=40, C=60, ragged=False, with_logits=False)),
        far(Case(T=20, S=5, C=6, ragged=False)),
        Case(T=285, S=270, C=30, N=1, ragged=False),
        Case("posteriors by class", T=20, S=5, C=6),
    ],
    "ctc_factors": [
        Case("loss", T=230, S=5, C=6),
        confident(Case("loss", T=230, S=40, C=300), margin=12),
    ],
    "ctc_refine": [
        Case("loss", T=40, S=5, C=6),
        confident(Case("loss", T=90, S=40, C=30)),
        confident(Case("loss", T=230, S=40, C=30)),
    ],
    "ctc_gradient": [
        Case(T=90, S=40, C=30),
        sharp(Case(T=52, S=20, C=30)),
        Case(T=90, S=80, C=40, N=2, edit=IN_PARTS),
        Case(T=300, S=130, C=20, N=1, ragged=False),
        certain(Case(T=90, S=40, C=30)),
        far(Case(T=20, S=5, C=6, ragged=False)),
    ],
    "ctc_align": [
        spoilt(Case("forced_align", T=90, S=40, C=60)),
        Case("forced_align", T=285, S=270, C=30, N=1, ragged=False),
    ],
    "ctc_posteriors": [
        Case("posteriors by class", T=90, S=40, C=30),
        sharp(Case("posteriors by class", T=52, S=20, C=30)),
        Case("posteriors by class", T=90, S=80, C=40, N=2, edit=IN_PARTS),
        Case("posteriors by class", T=300, S=130, C=20, N=1, ragged=False),
    ],
}


def launches():
    """One launch of each kernel; mutants are made of their texts."""
    lengths = mx.zeros(1, mx.int32)
    arrays = [mx.zeros((300, 1, 2)), mx.zeros((1, 1), mx.int32), lengths, lengths]
    found = {}
    for op in ctc_on_emulator.OPS:
        for launch in ctc_on_emulator.launches_of(
            arrays, op, blank=0, with_logits=True
        ):
            found.setdefault(launch.name, launch)
    return found.values()


def report_on(emulator, name, edit):
    """What is noticed about one kernel, edited, when its problems are run."""

    def edit_launch(launch):
        if launch.name == "ctc_normalisers":  # one threadgroup for all frames
            launch = replace(launch, grid=launch.threadgroup)
        return edit(launch) if launch.name == name else launch

    assert name in CASES, f"no problem for the mutants of {name}: add a Case to CASES"
    for case in CASES[name]:
        try:
            case.check(emulator, edit_launch)
        except AssertionError as error:
            return str(error)
    return "nothing"


def mutants(make, *parts):
    """A test parameter (kernel, edit) for each text that make() yields of a part."""
    parameters = []
    for launch in launches():
        for part in parts:
            text = without_comments(getattr(launch, part))
            for place, what, mutant in make(launch, text):
                line = text[:place].count("\n") + 1
                edit = partial(replace, **{part: mutant})
                id_ = f"{launch.name}, {part}, line {line}, {what}"
                parameters.append(pytest.param(launch.name, edit, id=id_))
    return pytest.mark.parametrize(("name", "edit"), parameters)


def weaker(barrier):
    """What the barrier becomes in each mutant, by what is wrong with it."""
    found = {"gone": ""}
    for memory in re.findall(r"mem_(device|threadgroup)", barrier[2]):
        without = barrier[0].replace(f"mem_{memory}", "mem_none")
        found[f"not for {memory} memory"] = without
    if barrier[1] == "threadgroup":
        smaller = barrier[0].replace("threadgroup_b", "simdgroup_b")
        found["for a simdgroup"] = smaller
    return found


def weaker_barriers(launch, text):
    for barrier in BARRIER.finditer(text):
        start, end = barrier.span()
        for what, other in weaker(barrier).items():
            yield start, what, text[:start] + other + text[end:]


@mutants(weaker_barriers, "header", "source")
def test_every_barrier_is_needed(emulator, name, edit):
    report = report_on(emulator, name, edit)
    assert re.match(f"{name}: (race|uninitialised|divergent)", report), report


def functions_with_barriers(header):
    """Each function of the header that meets a barrier: its name and its text."""
    found = {}
    for match in re.finditer(r"^METAL_FUNC [^;{]*?(\w+)\([^;{]*\{", header, re.M):
        end, depth = match.end(), 1
        while depth > 0:
            depth += {"{": 1, "}": -1}.get(header[end], 0)
            end += 1
        function = header[match.start() : end]
        if re.search("|".join([BARRIER.pattern, *map(call_of, found)]), function):
            found[match[1]] = function
    return found


def call_of(function):
    return rf"\b{function}[<(]"


def returns_before_barriers(text, functions, lane, value=""):
    """The text with a return of one lane before each barrier, and before each call of
    the functions, which have barriers."""
    meetings = "|".join([BARRIER.pattern, *map(call_of, functions)])
    for meeting in re.finditer(meetings, text):
        start = max(text.rfind(end, 0, meeting.start()) for end in ";{}") + 1
        leave = f" if ({lane} == 7) {{ return {value}; }} "
        yield start, "return before it", text[:start] + leave + text[start:]


def early_returns(launch, source):
    functions = functions_with_barriers(without_comments(launch.header))
    yield from returns_before_barriers(source, functions, "thread_index_in_simdgroup")


@mutants(early_returns, "source")
def test_no_thread_may_return_before_a_barrier(emulator, name, edit):
    report = report_on(emulator, name, edit)
    assert re.match(f"{name}: divergent.* has returned", report), report


def early_returns_of_functions(launch, header):
    functions = functions_with_barriers(header)
    for function in functions.values():
        signature, brace, body = function.partition("{")
        value = "" if signature.startswith("METAL_FUNC void") else "{}"
        lane = "self.lane" if "Threads self" in signature else "lane"
        begin = header.index(function) + len(signature + brace)
        end = begin + len(body)
        for start, what, edited in returns_before_barriers(
            body, functions, lane, value
        ):
            yield begin + start, what, header[:begin] + edited + header[end:]


@mutants(early_returns_of_functions, "header")
def test_no_thread_may_return_from_a_function_before_a_barrier(emulator, name, edit):
    report = report_on(emulator, name, edit)
    # The thread goes on after the call, and may race before it misses at a barrier.
    assert re.match(f"{name}: (divergent|race)", report), report


def missing_stores(launch, text):
    shared = re.findall(r"\bthreadgroup [\w:]+ (\w+)", text) + launch.output_names
    shared += re.findall(r"\b(?:Shared|Device)<[^<>]*> (\w+)", launch.header)
    through_name = rf"\b(?:\w+\.)*(?:{'|'.join(shared)})\[[^;=]*\](?:\.\w+)?"
    pointer = r"\*(?:to|gamma|\w+\.at\([^;=]*|\(device [^;=]*)"
    store = re.compile(rf"({through_name}|{pointer}) \+?=[^;=]*;")
    for match in store.finditer(text):
        start, end = match.span()
        yield start, match[1], text[:start] + ";" + text[end:]


@mutants(missing_stores, "header", "source")
def test_every_store_is_needed(emulator, name, edit):
    report = report_on(emulator, name, edit)
    assert report != "nothing"


# name: (text of the header, its replacement, what the report says)
HEADER_FAULTS = {
    "shuffle by two lanes": (
        "ctc_scan",
        "metal::simd_shuffle_up(a.m, 1)",
        "metal::simd_shuffle_up(a.m, 2)",
        "ctc_scan: undefined|depends on|Not equal",
    ),
    "shuffle from the other side": (
        "ctc_scan",
        "metal::simd_shuffle_up(a.e, 1)",
        "metal::simd_shuffle_down(a.e, 1)",
        "undefined|depends on|Not equal",
    ),
    "shuffle that some lanes leave out": (
        "ctc_scan",
        "METAL_FUNC Extended shuffle_up(Extended a) {",
        "METAL_FUNC Extended shuffle_up(Extended a) {\n  if (a.m > 1.5f) return a;",
        "ctc_scan: divergent.*simd_shuffle_up",
    ),
    "floats that are never found out of range": (
        "ctc_scan",
        "return range.least >= least_float &&",
        "return true ||",
        "Not equal",
    ),
    "probabilities of the scan that are never found out of range": (
        "ctc_scan",
        "if (!is_in_range(greatest)) {",
        "if (false) {",
        "Not equal",
    ),
    "probabilities that are never found out of range": (
        "ctc_gradient",
        "return is_in_range(greatest);",
        "return true;",
        "Not equal",
    ),
    "sum without the last step": (
        "ctc_gradient",
        "step > 0; step /= 2",
        "step > 1; step /= 2",
        "depends on|Not equal",
    ),
    "no frame is nearly certain": (
        "ctc_gradient",
        "metal::max(sums.blanks, sums.labels) > likely_part",
        "false",
        "Not equal",
    ),
    "likely class whatever its softmax": (
        "ctc_gradient",
        "score == scale.x",
        "true",
        "Not equal",
    ),
    "likely label that is not the greatest": (
        "ctc_gradient",
        "first = gamma > greatest ? rank : first",
        "first = rank",
        "Not equal",
    ),
    "others without the blanks": (
        "ctc_gradient",
        "y == rows.blank ? 0.0f : blanks",
        "0.0f",
        "Not equal",
    ),
    "others with the class's own labels": (
        "ctc_gradient",
        "rank < of_class.begin || rank >= of_class.end",
        "true",
        "Not equal",
    ),
}


@pytest.mark.parametrize("fault", HEADER_FAULTS)
def test_a_fault_in_a_helper_is_noticed(emulator, fault):
    kernel, old, new, expected = HEADER_FAULTS[fault]

    def edit(launch):
        assert launch.header.count(old) == 1
        return replace(launch, header=launch.header.replace(old, new))

    report = report_on(emulator, kernel, edit)
    assert re.search(expected, report), report
