"""Microseconds of each kernel of ctc_loss on a CUDA GPU, by torch's profiler.

    python benchmarks/gpu_kernels.py
    python benchmarks/gpu_kernels.py --shapes 512x128x32x128,1500x32x5000x80

The median of a few steps from logits to loss and gradient. With --confident the logits
are those of a trained model, whose loss is about 1e-3 nats per frame.
"""

import argparse
import re
from collections import defaultdict
from math import exp, log
from statistics import median

import numpy as np
import torch
from ctc_loss import SHAPES, Case, Ours
from torch.profiler import ProfilerActivity, profile

KERNELS = ["normalisers", "scan", "factors", "refine", "gradient"]


class Confident(Case):
    """The right class has all but 1e-3 of each frame, or, in the frame before a label,
    as much as the blank has."""

    def arrays(self):
        logits, targets, *lengths = super().arrays()
        (T, N, C), S = logits.shape, targets.shape[1]
        margin = log(C * exp(0.5)) - log(1e-3)
        state = np.arange(T) * (2 * S + 1) // T  # the frame's, of the blanks and labels
        spoken = np.zeros((T, N), int)
        spoken[state % 2 == 1] = targets.T[state[state % 2 == 1] // 2]
        sequences = np.arange(N)
        for t in range(T):
            logits[t, sequences, spoken[t]] += margin
            if t + 1 < T and state[t] % 2 == 0 and state[t + 1] % 2 == 1:
                logits[t, sequences, spoken[t + 1]] = logits[t, :, 0]
        return logits, targets, *lengths


def kernel_times(case, steps):
    """Microseconds of every launch, in the steps' order, by the kernel's name."""
    torch.zeros(1, device="cuda")  # the profiler needs torch's context
    ours = Ours(case)
    for _ in range(3):  # compiles, and fills MLX's cache of memory
        ours.step("gradient")
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            ours.step("gradient")
    times = defaultdict(list)
    for event in profiler.events():
        if found := re.search(r"ctc_(\w+?)_", event.name + "_"):
            times[found[1]].append(event.time_range.elapsed_us())
    return times


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", help="TxNxCxS, several with commas between")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--confident", action="store_true", help="a trained model's")
    options = parser.parse_args()
    shapes = options.shapes.split(",") if options.shapes else SHAPES["gpu"]
    print("T x N x C x S".rjust(20), *(name.rjust(12) for name in KERNELS))
    make = Confident if options.confident else Case
    for shape in shapes:
        times = kernel_times(make(shape, "gpu", "float32", threads=1), options.steps)
        cells = (
            f"{median(times[name]):.1f}" if times[name] else "-" for name in KERNELS
        )
        print(shape.rjust(20), *(cell.rjust(12) for cell in cells), flush=True)


if __name__ == "__main__":
    main()
