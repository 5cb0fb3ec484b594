"""Milliseconds of loss and gradient on the CPU, for each number of threads.

    python benchmarks/threads.py
    python benchmarks/threads.py --threads 1,2,4,8,16 --shapes 64x128x32x16 --cold

Every number of threads is measured in a process of its own, by the steps of
ctc_loss.py: the median of --turns turns, and in brackets torch's time divided by ours.
Lengths are ragged. The last column says how much longer more threads took than fewer,
if it was more than a tenth.
"""

import argparse
import os
import sys
from statistics import median

from ctc_loss import Case, measure_time, new_process, print_row, ratios

SHAPES = [
    "64x128x32x16",
    "128x128x32x32",
    "256x128x32x64",
    "128x16x32x32",
    "128x32x32x32",
    "128x512x32x32",
    "128x128x8x32",
    "150x32x5000x40",
]


def powers_of_two(most):
    """1, 2, 4 and so on, and `most`."""
    return [*(2**i for i in range(most.bit_length()) if 2**i < most), most]


def measure(shape, threads, options):
    """The seconds of each turn, by library."""
    case = Case(shape, "cpu", "float32", threads, ragged=True, cold=options.cold)
    with new_process(threads) as process:
        return process.submit(measure_time, case, options).result()[0]["seconds"]


def cell(seconds):
    text = f"{1e3 * median(seconds['ours']):.2f}"
    if "torch" in seconds:
        text += f" ({median(ratios(seconds, 'torch')):.1f})"
    return text


def slower(times):
    """How much longer more threads took than fewer, at worst."""
    best, worst = times[0], 1.0
    for time in times:
        worst = max(worst, time / best)
        best = min(best, time)
    return f"{worst:.2f}" if worst > 1.1 else "no"


def parse_options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--threads", help="as 1,2,4; default: powers of two up to all cores")
    add("--shapes", default=",".join(SHAPES), help="TxNxCxS, several with commas")
    add("--turns", type=int, default=7, help="turns of each library (default: 7)")
    add("--cold", action="store_true", help="sweep the caches before each step")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    numbers = options.threads.split(",") if options.threads else powers_of_two(cores)
    options.threads = [int(number) for number in numbers]
    options.tasks, options.cache = ["gradient"], None
    return options


def main():
    options = parse_options()
    print_row(["T x N x C x S", *options.threads, "more is slower"])
    for shape in options.shapes.split(","):
        turns = [measure(shape, threads, options) for threads in options.threads]
        medians = [median(seconds["ours"]) for seconds in turns]
        print_row([shape, *map(cell, turns), slower(medians)])


if __name__ == "__main__":
    main()
