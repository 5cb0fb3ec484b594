"""Errors of the loss beside float64, of mlx_ctc and of torch, both in float32.

    python benchmarks/exactness.py --json benchmarks/results/exactness_cpu.json
    python benchmarks/exactness.py --device gpu --json benchmarks/results/exactness_gpu.json

For each number of frames, size of the loss and entry (log-probabilities or logits), a
few problems whose losses have that size. An error is relative to the loss in float64 of
the same input, and the greatest of the problems is shown. torch runs on the CPU; with
logits it is its log_softmax and ctc_loss.
"""

import argparse
import sys
from math import exp, expm1, log
from pathlib import Path

import mlx.core as mx
import numpy as np
from ctc_loss import machine, write_report

from mlx_ctc import ctc_loss

sys.path.append(str(Path(__file__).parent.parent / "tests"))
import exact  # the problems, and their losses in float64

FRAMES = [100, 1000, 10000, 100000]
SIZES = [1e-6, 1e-4, 1e-2, 1, 1e2, 1e4, 1e6]
ENTRIES = {"log-probabilities": False, "logits": True}
CLASSES = 32
SPREAD = 1.0  # standard deviation of the scores


def margin_for(size, T):
    """The nats by which a class has to lead in each frame for a loss of this size."""
    others = (CLASSES - 1) * exp(SPREAD**2 / 2)
    per_frame = size / T
    # log(1 + others * exp(-margin)) = per_frame
    return log(others) - (per_frame if per_frame > 30 else log(expm1(per_frame)))


def problems(T, size, with_logits, count):
    for seed in range(count):
        rng = np.random.default_rng(seed)
        yield exact.confident(
            rng, T, CLASSES, min(T // 25, 200), margin_for(size, T), with_logits, SPREAD
        )


def ours(problem):
    losses = ctc_loss(*problem.arrays(), reduction="none", **problem.options)
    return losses.item()


def torchs(problem):
    import torch

    inputs = torch.tensor(problem.inputs, dtype=torch.float32)
    if problem.with_logits:
        inputs = inputs.log_softmax(2)
    rest = [
        torch.tensor(np.asarray(array))
        for array in (problem.targets, problem.input_lengths, problem.target_lengths)
    ]
    return torch.nn.functional.ctc_loss(inputs, *rest, reduction="none").item()


def measure(T, size, entry, count):
    """A record: the greatest of the losses and of each library's relative errors."""
    record = {"T": T, "size": size, "entry": entry, "loss": 0.0, "ours": 0.0, "torch": 0.0}
    for problem in problems(T, size, ENTRIES[entry], count):
        expected = exact.exact_loss(problem).item()
        record["loss"] = max(record["loss"], expected)
        for name, loss in {"ours": ours, "torch": torchs}.items():
            error = abs(loss(problem) - expected) / expected
            record[name] = max(record[name], error)
    return record


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--problems", type=int, default=3, help="of each kind")
    parser.add_argument("--json", metavar="FILE", help="write the errors to a file")
    options = parser.parse_args()
    if options.device == "gpu" and not mx.is_available(mx.gpu):
        parser.error("--device gpu: MLX reports no GPU")
    mx.set_default_device(getattr(mx, options.device))
    records = []
    report = {
        "machine": machine(options.device),
        "command": sys.argv,
        "records": records,
    }
    for T in FRAMES:
        for entry in ENTRIES:
            for size in SIZES:
                if size / T > 100:  # nats per frame, as no model has them
                    continue
                record = measure(T, size, entry, options.problems)
                print(
                    f"T {T}, {entry}, loss {record['loss']:.3g}: "
                    f"{record['ours']:.1e}, torch {record['torch']:.1e}",
                    flush=True,
                )
                records.append(record)
                if options.json:
                    write_report(Path(options.json), report)


if __name__ == "__main__":
    main()
