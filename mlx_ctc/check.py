"""Compares the GPU with the CPU on this machine: ``python -m mlx_ctc.check``.

Compiles every variant of every kernel with the GPU's own compiler, runs it, and prints
a report to paste into an issue. Exits with 1 if anything differs or there is no GPU.
"""

import platform
import sys
import time
from dataclasses import dataclass

import mlx.core as mx

import mlx_ctc

# T, N, C, S, the scores' standard deviation, and what is special about it.
PROBLEMS = [
    (20, 3, 7, 5, 1, "a small batch: MLX passes its lengths as constants"),
    (50, 12, 28, 20, 1, "one window of states"),
    (128, 9, 32, 32, 1, "targets that fill their window, small rows side by side"),
    (300, 9, 2, 60, 1, "two classes, repeated labels"),
    (400, 8, 64, 150, 1, "several simdgroups"),
    (400, 8, 64, 150, 30, "scores so far apart that floats do not hold the recursion"),
    (1100, 4, 40, 500, 1, "more windows than simdgroups"),
    (2500, 2, 33, 1200, 1, "fewer frames in a threadgroup"),
    (30, 4, 20000, 10, 1, "a frame's classes over several simdgroups"),
    (15100, 1, 11, 7500, 1, "a target in two parts"),
    (10000, 2, 32, 100, 1, "ten thousand frames"),
]
DTYPES = [mx.float32, mx.float16, mx.bfloat16]

# Differences are relative, absolute below 1. A 16-bit gradient is rounded once.
GRADIENT_TOLERANCE = {mx.float32: 1e-5, mx.float16: 1e-3, mx.bfloat16: 8e-3}
LOSS_TOLERANCE = 5e-6
POSTERIOR_TOLERANCE = 1e-5


@dataclass
class Difference:
    loss: float
    gradient: float
    posteriors: float
    frames: int  # that are aligned otherwise
    seconds: float  # of the first run on the GPU, with compilation

    def within_tolerance(self, dtype):
        return (
            self.loss <= LOSS_TOLERANCE
            and self.gradient <= GRADIENT_TOLERANCE[dtype]
            and self.posteriors <= POSTERIOR_TOLERANCE
            and self.frames == 0
        )


def problem(T, N, C, S, spread, dtype):
    """Random scores with sequences of many lengths, one of them infeasible."""
    mx.random.seed(0)
    scores = (spread * mx.random.normal((N, T, C))).astype(dtype).swapaxes(0, 1)
    targets = mx.random.randint(1, C, (N, S))
    target_lengths = mx.random.randint(S // 2, S + 1, (N,))
    input_lengths = mx.random.randint(3 * T // 4, T + 1, (N,))
    if N > 1:
        input_lengths[1] = min(S // 4, T)
    mx.eval(scores, targets, input_lengths, target_lengths)
    return scores, targets, input_lengths, target_lengths


def loss_and_gradient(scores, *rest, with_logits, device):
    def losses(scores):
        return mlx_ctc.ctc_loss(
            scores, *rest, reduction="none", with_logits=with_logits, stream=device
        )

    (loss,), (gradient,) = mx.vjp(losses, [scores], [mx.ones(scores.shape[1])])
    mx.eval(loss, gradient)
    return loss, gradient


def alignment_and_posteriors(
    scores, targets, input_lengths, target_lengths, with_logits, device
):
    options = {"with_logits": with_logits, "stream": device}
    # forced_align refuses a target that does not fit, unless it cannot know yet.
    input_lengths = input_lengths + 0
    arrays = scores, targets, input_lengths, target_lengths
    path, _ = mlx_ctc.forced_align(*arrays, **options)
    posteriors = mlx_ctc.ctc_posteriors(*arrays, **options)
    mx.eval(path, posteriors)
    return path, posteriors


def run(arrays, with_logits, device):
    options = {"with_logits": with_logits, "device": device}
    return (
        *loss_and_gradient(*arrays, **options),
        *alignment_and_posteriors(*arrays, **options),
    )


def greatest_difference(a, b):
    """Infinities and NaN are equal to themselves and far from all else."""
    with mx.stream(mx.cpu):
        a, b = a.astype(mx.float32), b.astype(mx.float32)
        same = (a == b) | (mx.isnan(a) & mx.isnan(b))
        scale = mx.maximum(mx.abs(b), 1)
        difference = mx.where(same, 0, mx.abs(a - b) / scale)
        return mx.max(mx.where(mx.isnan(difference), mx.inf, difference)).item()


def compare(sizes, dtype, with_logits):
    arrays = problem(*sizes, dtype)
    start = time.perf_counter()
    loss, gradient, path, posteriors = run(arrays, with_logits, mx.gpu)
    seconds = time.perf_counter() - start
    expected = run(arrays, with_logits, mx.cpu)
    expected_loss, expected_gradient, expected_path, expected_posteriors = expected
    return Difference(
        greatest_difference(loss, expected_loss),
        greatest_difference(gradient, expected_gradient),
        greatest_difference(posteriors, expected_posteriors),
        mx.sum(path != expected_path, stream=mx.cpu).item(),
        seconds,
    )


def main() -> int:
    print(f"mlx-ctc {mlx_ctc.__version__}, MLX {mx.__version__}")
    print(f"{platform.platform()}, Python {platform.python_version()}")
    if not mx.is_available(mx.gpu):
        print("MLX reports no GPU: nothing was compared.")
        return 1
    print(", ".join(f"{k}: {v}" for k, v in mx.device_info(mx.gpu).items()))

    failures = 0
    print(
        "\n  T x N x C x S, type, input: differences of loss, gradient and posteriors,"
    )
    print("  frames aligned otherwise, first run")
    for *sizes, note in PROBLEMS:
        print(f"\n{note}")
        for dtype in DTYPES:
            for with_logits in (True, False):
                kind = "logits" if with_logits else "log_probs"
                name = f"{'x'.join(map(str, sizes[:4]))} {str(dtype)[9:]} {kind}"
                try:
                    found = compare(sizes, dtype, with_logits)
                except Exception as error:  # what the compiler said is the report
                    failures += 1
                    print(f"  FAILED {name}: {error}")
                    continue
                good = found.within_tolerance(dtype)
                failures += not good
                print(
                    f"  {'ok    ' if good else 'DIFFER'} {name}: "
                    f"{found.loss:.1e}, {found.gradient:.1e}, {found.posteriors:.1e}, "
                    f"{found.frames}, {found.seconds:.2f} s"
                )
    cases = len(PROBLEMS) * len(DTYPES) * 2
    print(f"\n{cases - failures} of {cases} agree.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
