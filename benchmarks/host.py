"""What the host spends on a small step on a CUDA GPU, and how much of that is MLX's.

    python benchmarks/host.py
    python benchmarks/host.py --shapes 64x128x32x16,128x128x32x32 --json out.json

Microseconds for each step of 20 that are queued before the host waits, the median of
many such turns. A kernel that does nothing is launched through mx.fast.cuda_kernel, as
MLX launches ours; its text is made longer by a comment, because MLX hashes the text or
code of a kernel at every launch.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path
from statistics import median

import mlx.core as mx
from ctc_loss import Case, Ours, OursCompiled

CODE = 75_000  # bytes: about the size of the scan's code, and of the gradient's


def microseconds(step, seconds):
    """Of a queued step, which returns what is evaluated."""
    for _ in range(20):
        mx.eval(step())
    turns = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        for _ in range(20):
            mx.async_eval(step())
        mx.synchronize()
        turns.append((time.perf_counter() - begin) / 20)
    return 1e6 * median(turns)


def chain(length, code_bytes):
    """A compiled function of kernels that do nothing, each after the other."""
    kernel = mx.fast.cuda_kernel(
        name=f"nothing_{code_bytes}",
        input_names=["x"],
        output_names=["y"],
        source="/*" + code_bytes * "-" + "*/",
    )

    def run(x):
        for _ in range(length):
            (x,) = kernel(
                inputs=[x],
                output_shapes=[x.shape],
                output_dtypes=[x.dtype],
                grid=(32, 1, 1),
                threadgroup=(32, 1, 1),
            )
        return x

    return partial(mx.compile(run), mx.zeros(64))


def ctc_steps(shape):
    """{how: step}"""
    case = Case(shape, "gpu", "float32", threads=1)
    uncompiled, compiled = Ours(case), OursCompiled(case)
    return {
        "uncompiled": partial(uncompiled.tasks["gradient"], uncompiled.logits),
        "compiled": partial(compiled.tasks["gradient"], compiled.logits),
        "compiled, loss only": partial(compiled.tasks["loss"], compiled.logits),
    }


def measure(shapes, seconds):
    """{what: microseconds}"""
    results = {}
    for code_bytes in 0, CODE:
        one, eight = (microseconds(chain(k, code_bytes), seconds) for k in (1, 8))
        results[f"a kernel that does nothing, {code_bytes} bytes"] = one
        results[f"each further one, {code_bytes} bytes"] = (eight - one) / 7
    square = mx.value_and_grad(lambda x: (x * x).sum())
    x = mx.ones(64)
    results["value_and_grad of a sum of squares"] = microseconds(
        partial(square, x), seconds
    )
    results["the same, compiled"] = microseconds(
        partial(mx.compile(square), x), seconds
    )
    for shape in shapes:
        for how, step in ctc_steps(shape).items():
            results[f"CTC {shape}, {how}"] = microseconds(step, seconds)
    return results


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default="64x128x32x16,128x128x32x32,256x128x32x64")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each line")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not mx.cuda.is_available():
        raise SystemExit("needs a CUDA GPU")
    results = measure(options.shapes.split(","), options.seconds)
    for what, value in results.items():
        print(f"{value:8.1f}  {what}")
    if options.json:
        record = {"mlx": mx.__version__, "microseconds": results}
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
