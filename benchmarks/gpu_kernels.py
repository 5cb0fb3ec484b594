"""Microseconds of each kernel of ctc_loss on a CUDA GPU, by torch's profiler.

    python benchmarks/gpu_kernels.py
    python benchmarks/gpu_kernels.py --shapes 512x128x32x128,1500x32x5000x80

The median of a few steps from logits to loss and gradient.
"""

import argparse
import re
from collections import defaultdict
from statistics import median

import torch
from ctc_loss import SHAPES, Case, Ours
from torch.profiler import ProfilerActivity, profile

KERNELS = ["normalisers", "scan", "refine", "gradient"]


def kernel_times(shape, steps):
    """Microseconds of every launch, in the steps' order, by the kernel's name."""
    ours = Ours(Case(shape, "gpu", "float32", threads=1))
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
    options = parser.parse_args()
    shapes = options.shapes.split(",") if options.shapes else SHAPES["gpu"]
    torch.zeros(1, device="cuda")  # the profiler needs torch's context
    print("T x N x C x S".rjust(20), *(name.rjust(12) for name in KERNELS))
    for shape in shapes:
        times = kernel_times(shape, options.steps)
        cells = (f"{median(times[name]):.1f}".rjust(12) for name in KERNELS)
        print(shape.rjust(20), *cells, flush=True)


if __name__ == "__main__":
    main()
