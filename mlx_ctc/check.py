"""Compares the GPU with the CPU on this machine: ``python -m mlx_ctc.check``.

Compiles every variant of every kernel with the GPU's compiler, runs it, and prints a
report to paste into an issue. With ``--quick``, a few variants only. Exits with 1 if a
result differs or there is no GPU.

With ``--report``, prints what an issue should say about the machine and the versions,
and one loss on the CPU: compares no kernels and needs no GPU.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import mlx.core as mx
import numpy as np

import mlx_ctc
from mlx_ctc._install import INSTALLED, SUPPORTED, backends, installed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# T, N, C, S, the standard deviation of the scores, and what the problem is for. Of
# standard deviation 0, the scores are those of a model that is right in each frame.
PROBLEMS = [
    (20, 3, 7, 5, 1, "a small batch: MLX passes its lengths in constant memory"),
    (50, 12, 28, 20, 1, "one window of 32 labels"),
    (128, 9, 32, 32, 1, "targets that fill a window; several rows written at once"),
    (300, 9, 2, 60, 1, "two classes, repeated labels"),
    (400, 8, 64, 150, 1, "several simdgroups"),
    (400, 8, 64, 150, 30, "scores too far apart for the recursion in floats"),
    (1100, 4, 40, 500, 1, "more windows than simdgroups"),
    (2500, 2, 33, 1200, 1, "a threadgroup has room for fewer frames"),
    (30, 4, 20000, 10, 1, "one frame's classes over several simdgroups"),
    (15100, 1, 11, 7500, 1, "a target in two parts"),
    (10000, 2, 32, 100, 1, "ten thousand frames"),
    (200, 8, 40, 30, 0, "a model that is right: digits of small losses"),
    (400, 8, 40, 150, 0, "the same with several simdgroups"),
]
DTYPES = [mx.float32, mx.float16, mx.bfloat16]

# Kinds of scores: with_logits and normalized.
KINDS = {
    "logits": (True, True),
    "log_probs": (False, True),
    "scores": (False, False),
}

# With --quick, of logits alone: a small launch of every kernel, and the largest
# threadgroup of the scan.
QUICK_PROBLEMS = [PROBLEMS[1], PROBLEMS[6]]
QUICK_DTYPES = [mx.float32]
QUICK_KINDS = {"logits": KINDS["logits"]}

# What MLX's errors of a launch mean: a part of the message, and an explanation.
EXPLANATIONS = {
    "Thread group size": "this GPU's compiler gives the kernel too many registers for "
    "the number of threads in its launch",
    "Unable to build": "the GPU's compiler refuses the kernel's text",
    "Unable to load": "the GPU's driver refuses the compiled kernel",
    "Failed to compile": "the GPU's compiler refuses the kernel's text",
    "Insufficient Memory": "the GPU has too little memory",
    "Unable to allocate": "the GPU has too little memory",
    "Timeout": "the system stopped a kernel that ran for several seconds",
}

# Relative to the expected value, or absolute where that is below 1, or below its entry
# in LEAST. A 16-bit gradient is rounded once.
GRADIENT_TOLERANCE = {mx.float32: 1e-5, mx.float16: 1e-3, mx.bfloat16: 8e-3}
LOSS_TOLERANCE = 5e-6
POSTERIOR_TOLERANCE = 1e-5
LEAST = {"loss": 1e-3}

# Scores, targets, input lengths and target lengths.
Batch: TypeAlias = tuple[mx.array, mx.array, mx.array, mx.array]


def limits(dtype: mx.Dtype) -> dict[str, float]:
    """How much each result of :func:`run` may differ for scores of this type."""
    return {
        "loss": LOSS_TOLERANCE,
        "gradient": GRADIENT_TOLERANCE[dtype],
        "posteriors": POSTERIOR_TOLERANCE,
        "posteriors by class": POSTERIOR_TOLERANCE,
        "frames of the alignment": 0,
    }


@dataclass
class Difference:
    differences: dict[str, float]  # of each result
    seconds: float  # of the first run on the GPU, including compilation

    def over_limit(self, dtype: mx.Dtype) -> list[str]:
        """What differs by more than its limit, with that limit."""
        return [
            f"{name} (limit {limit:g})"
            for name, limit in limits(dtype).items()
            if not self.differences[name] <= limit
        ]

    def __str__(self) -> str:
        shown = [
            f"{value:.1e}" if isinstance(value, float) else str(value)
            for value in self.differences.values()
        ]
        return f"{', '.join(shown)}; {self.seconds:.2f} s"


@contextmanager
def naming(kernels: str) -> Iterator[None]:
    """Adds to an error which kernels were launched, and what MLX's message means."""
    try:
        yield
    except Exception as error:
        message = str(error)
        meanings = [text for part, text in EXPLANATIONS.items() if part in message]
        meaning = f" ({meanings[0]})" if meanings else ""
        raise RuntimeError(f"{kernels}{meaning}: {message}") from error


def problem(T: int, N: int, C: int, S: int, spread: int, dtype: mx.Dtype) -> Batch:
    """Random scores and sequences of various lengths, one of which does not fit."""
    mx.random.seed(0)
    scores = (spread * mx.random.normal((N, T, C))).astype(dtype).swapaxes(0, 1)
    targets = mx.random.randint(1, C, (N, S))
    target_lengths = mx.random.randint(S // 2, S + 1, (N,))
    input_lengths = mx.random.randint(3 * T // 4, T + 1, (N,))
    if N > 1:
        input_lengths[1] = min(S // 4, T)
    if spread == 0:
        right = right_classes(T, targets, input_lengths, target_lengths)
        scores += 12 * (right[..., None] == mx.arange(C))
    mx.eval(scores, targets, input_lengths, target_lengths)
    return scores, targets, input_lengths, target_lengths


def right_classes(
    T: int, targets: mx.array, input_lengths: mx.array, target_lengths: mx.array
) -> mx.array:
    """(T, N): each label and the blank before it, for equal numbers of frames."""
    half = 2 * mx.arange(T)[:, None] * target_lengths // input_lengths
    place = mx.minimum(half // 2, targets.shape[1] - 1)
    labels = mx.take_along_axis(targets, place.T, axis=1).T
    return mx.where(half % 2 == 1, labels, 0)


def loss_and_gradient(
    scores: mx.array,
    targets: mx.array,
    input_lengths: mx.array,
    target_lengths: mx.array,
    *,
    with_logits: bool,
    normalized: bool,
    device: mx.DeviceType,
) -> tuple[mx.array, mx.array]:
    def losses(scores: mx.array) -> mx.array:
        return mlx_ctc.ctc_loss(
            scores,
            targets,
            input_lengths,
            target_lengths,
            reduction="none",
            with_logits=with_logits,
            normalized=normalized,
            stream=device,
        )

    (loss,), (gradient,) = mx.vjp(losses, [scores], [mx.ones(scores.shape[1])])
    kernels = "ctc_normalisers, ctc_scan, ctc_factors and ctc_refine"
    with naming(f"the loss, kernels {kernels}"):
        mx.eval(loss)
    with naming("the gradient, kernel ctc_gradient"):
        mx.eval(gradient)
    return loss, gradient


def posteriors_and_alignment(
    scores: mx.array,
    targets: mx.array,
    input_lengths: mx.array,
    target_lengths: mx.array,
    *,
    with_logits: bool,
    device: mx.DeviceType,
) -> dict[str, mx.array]:
    # An array that has not been evaluated, so that forced_align does not raise an error
    # for the target that does not fit.
    input_lengths = input_lengths + 0
    arrays = scores, targets, input_lengths, target_lengths
    path, _ = mlx_ctc.forced_align(*arrays, with_logits=with_logits, stream=device)
    by_label, by_class = (
        mlx_ctc.ctc_posteriors(
            *arrays, by_class=grouped, with_logits=with_logits, stream=device
        )
        for grouped in (False, True)
    )
    with naming("the alignment, kernels ctc_normalisers and ctc_align"):
        mx.eval(path)
    with naming("the posteriors, kernels ctc_normalisers, ctc_scan and ctc_posteriors"):
        mx.eval(by_label)
    with naming("the posteriors by class, kernel ctc_posteriors"):
        mx.eval(by_class)
    return {
        "posteriors": by_label,
        "posteriors by class": by_class,
        "frames of the alignment": path,
    }


def run(
    arrays: Batch, with_logits: bool, normalized: bool, device: mx.DeviceType
) -> dict[str, mx.array]:
    """What is compared, by the names that :func:`limits` has."""
    loss, gradient = loss_and_gradient(
        *arrays, with_logits=with_logits, normalized=normalized, device=device
    )
    others = posteriors_and_alignment(*arrays, with_logits=with_logits, device=device)
    return {"loss": loss, "gradient": gradient, **others}


def greatest_difference(a: mx.array, b: mx.array, least: float = 1) -> float:
    """Relative to b, or where it is below ``least``, to that.

    NaN and infinities equal themselves and differ infinitely from other values.
    """
    with mx.stream(mx.cpu):
        a, b = a.astype(mx.float32), b.astype(mx.float32)
        same = (a == b) | (mx.isnan(a) & mx.isnan(b))
        scale = mx.maximum(mx.abs(b), least)
        difference = mx.where(same, 0, mx.abs(a - b) / scale)
        difference = mx.where(mx.isnan(difference), mx.inf, difference)
        return float(np.array(mx.max(difference)))


def difference(name: str, a: mx.array, b: mx.array) -> float:
    """The greatest, or how many integers differ."""
    if mx.issubdtype(a.dtype, mx.integer):
        return int(np.sum(np.array(a) != np.array(b)))
    return greatest_difference(a, b, LEAST.get(name, 1))


def compare(
    sizes: tuple[int, int, int, int, int],
    dtype: mx.Dtype,
    with_logits: bool,
    normalized: bool,
) -> Difference:
    arrays = problem(*sizes, dtype)
    start = time.perf_counter()
    results = run(arrays, with_logits, normalized, mx.gpu)
    seconds = time.perf_counter() - start
    expected = run(arrays, with_logits, normalized, mx.cpu)
    found = {name: difference(name, a, expected[name]) for name, a in results.items()}
    return Difference(found, seconds)


def environment() -> list[str]:
    """Versions, machine and settings. Of settings that are paths, only their names."""
    packages = {name: installed(name) for name in ("numpy", "torch")}
    versions = {**backends(), **{k: v for k, v in packages.items() if v}}
    settings = {
        name: "(a path)" if os.sep in value else value
        for name, value in sorted(os.environ.items())
        if name.startswith(("MLX_", "MTL_", "OMP_NUM_THREADS"))
    }
    supported = " to ".join(dict.fromkeys([SUPPORTED[0], SUPPORTED[-1]]))
    lines = [
        f"mlx-ctc {mlx_ctc.__version__}, MLX {INSTALLED}, built for MLX {supported}",
        f"{platform.platform()}, {platform.machine()}, {os.cpu_count()} CPUs, "
        f"Python {platform.python_version()}",
        listed(versions),
        listed(settings) or "no settings of MLX in the environment",
    ]
    if mx.is_available(mx.gpu):
        lines.append(listed(gpu_info()))
    return [line for line in lines if line]


def gpu_info() -> Mapping[str, object]:
    """What MLX says of the GPU. MLX 0.30 knows Metal's alone."""
    if hasattr(mx, "device_info"):
        return mx.device_info(mx.gpu)
    return mx.metal.device_info() if mx.metal.is_available() else {"GPU": "not named"}


def listed(items: Mapping[str, object]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in items.items())


def report() -> int:
    """Prints the environment and a loss on the CPU, for which there is a formula."""
    print("\n".join(environment()))
    if not mx.is_available(mx.gpu):
        print("MLX reports no GPU")
    # All paths of 4 frames and 3 classes have the same probability; 15 are of [1, 2].
    expected = 4 * math.log(3) - math.log(15)
    loss = mlx_ctc.ctc_loss(
        mx.zeros((4, 3)), [1, 2], reduction="sum", with_logits=True, stream=mx.cpu
    ).item()
    agrees = abs(loss / expected - 1) < LOSS_TOLERANCE
    print(
        f"a loss on the CPU is {loss:.6f}, which is "
        f"{'right' if agrees else f'wrong: it should be {expected:.6f}'}"
    )
    return 0 if agrees else 1


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mlx_ctc.check",
        description="Compares the GPU kernels of mlx-ctc with its CPU code.",
    )
    parser.add_argument("--quick", action="store_true", help="a few variants only")
    parser.add_argument(
        "--report",
        action="store_true",
        help="versions and machine, for an issue; compares nothing",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] = ()) -> int:
    options = parse(arguments)
    if options.report:
        return report()
    quick = options.quick
    problems, dtypes = (QUICK_PROBLEMS, QUICK_DTYPES) if quick else (PROBLEMS, DTYPES)

    print("\n".join(environment()))
    if not mx.is_available(mx.gpu):
        print("MLX reports no GPU: nothing was compared.")
        return 1

    kinds = QUICK_KINDS if quick else KINDS
    cases = len(problems) * len(dtypes) * len(kinds)
    print(
        f"\n{cases} cases. The first run compiles the kernels: expect "
        f"{'about 20 seconds' if quick else '2 to 8 minutes'}."
    )
    failures = 0
    results = ", ".join(limits(dtypes[0]))
    print("\n  T x N x C x S, type, input: differences of")
    print(f"  {results}; seconds of the first run")
    for T, N, C, S, spread, note in problems:
        print(f"\n{note}")
        for dtype in dtypes:
            for kind, (with_logits, normalized) in kinds.items():
                name = f"{T}x{N}x{C}x{S} {str(dtype)[9:]} {kind}"
                try:
                    found = compare(
                        (T, N, C, S, spread), dtype, with_logits, normalized
                    )
                except Exception as error:  # with the compiler's message
                    failures += 1
                    print(f"  FAILED {name}: {error}", flush=True)
                    continue
                over = found.over_limit(dtype)
                failures += bool(over)
                message = f": {', '.join(over)} differ" if over else ""
                print(
                    f"  {'DIFFER' if over else 'ok    '} {name}: {found}{message}",
                    flush=True,
                )
    print(f"\n{cases - failures} of {cases} agree.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
