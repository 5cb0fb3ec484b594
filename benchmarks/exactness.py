"""Errors of the loss beside float64, of mlx_ctc and of torch, both in float32.

    python benchmarks/exactness.py --json benchmarks/results/exactness_cpu.json
    python benchmarks/exactness.py --device gpu \\
        --json benchmarks/results/exactness_gpu.json

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
import exact
from problems import random_problem

FRAMES = [100, 1000, 10000, 100000]
SIZES = [1e-6, 1e-4, 1e-2, 1, 1e2, 1e4, 1e6]
ENTRIES = {"log-probabilities": False, "logits": True}
CLASSES = 32
LABELS = 100, 25  # at most, and at most one in so many frames


def confident(rng, T, size, with_logits):
    """A model that is right by as many nats in each frame as this loss takes."""
    # log(1 + others * exp(-margin)) = size / T, with scores of variance 1
    others = (CLASSES - 1) * exp(0.5)
    margin = log(others) - log(expm1(size / T))
    return exact.confident(rng, T, CLASSES, labels_for(T), margin, with_logits)


def untrained(rng, T, size, with_logits):
    """Random scores, as far apart as this loss takes."""
    return random_problem(
        rng,
        T=T,
        N=1,
        C=CLASSES,
        S=labels_for(T),
        ragged=False,
        spread=0.6 * size / T,
        with_logits=with_logits,
    )


def labels_for(T):
    most, frames = LABELS
    return min(most, T // frames)


def problem_and_loss(rng, T, size, with_logits):
    """The float64 losses of the two are exact where the loss is small or great."""
    if size < T:
        problem = confident(rng, T, size, with_logits)
        return problem, exact.exact_loss(problem).item()
    problem = untrained(rng, T, size, with_logits)
    return problem, problem.expected(mx.float32)[0].item()


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
    record = {
        "T": T,
        "size": size,
        "entry": entry,
        "loss": 0.0,
        "ours": 0.0,
        "torch": 0.0,
    }
    for seed in range(count):
        rng = np.random.default_rng(seed)
        problem, expected = problem_and_loss(rng, T, size, ENTRIES[entry])
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
                if size / T > 100:  # nats per frame: no model is so wrong
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
