"""Two builds of mlx_ctc compared with each other: loss and gradient, in turns.

    pip install --no-deps --target before .     # in a checkout of the first
    pip install --no-deps --target after .      # in one of the second
    python benchmarks/compare.py before after
    python benchmarks/compare.py before after --device gpu --kernels

A cell has microseconds with the first build, with the second, and the median over turns
of the second's divided by the first's. On the CPU it is processor time of a step on one
thread; on a GPU, time of each step of 20 that are queued. --kernels adds the time in
kernels, by torch's profiler.

Each build and shape has a process of its own. All of them start, and compile kernels,
before the first is measured.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

from ctc_loss import SHAPES, Case, Ours, OursCompiled, new_process, print_row

TURN = 0.1  # seconds
QUEUED = 20  # steps
WIDTH = 22  # of the table's columns

measurements = {}  # in a build's process: the function for each column


def processor_time(runner):
    """The seconds of processor time per step, of enough steps for a turn."""

    def per_step(count):
        begin = time.process_time()
        for _ in range(count):
            runner.step("gradient")
        return (time.process_time() - begin) / count

    return per_step(max(1, round(TURN / per_step(1))))


def queued_time(runner):
    """The seconds per queued step, the median of a turn."""
    times = []
    while sum(times) * QUEUED < TURN:
        times.append(runner.queue("gradient", QUEUED))
    return median(times)


def kernel_time(case):
    """The seconds that a step spends in kernels, the sum of each kernel's median."""
    from gpu_kernels import kernel_times

    return sum(median(times) for times in kernel_times(case, steps=30).values()) / 1e6


def prepare(folder, case):
    """Makes this process the one of a build and case, and warms up."""
    sys.path.insert(0, str(folder))
    import mlx_ctc

    if folder not in Path(mlx_ctc.__file__).resolve().parents:
        raise ImportError(f"mlx_ctc is {mlx_ctc.__file__}, and not that in {folder}")
    if case.device == "cpu":
        runners = {"step": (processor_time, Ours(case))}
    else:
        runners = {
            "step": (queued_time, Ours(case)),
            "compiled step": (queued_time, OursCompiled(case)),
        }
    for column, (measure, runner) in runners.items():
        measurements[column] = partial(measure, runner)
        measurements[column]()
    measurements["kernels"] = partial(kernel_time, case)


def measure(column):
    return measurements[column]()


def compared(pair, column, turns):
    """The cell of a column. The builds alternate."""
    times = [
        [build.submit(measure, column).result() for build in pair] for _ in range(turns)
    ]
    before, after = (1e6 * median(of_build) for of_build in zip(*times, strict=True))
    ratio = median(second / first for first, second in times)
    return f"{before:.1f} {after:.1f} {ratio:.2f}"


def parse_options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("before", type=Path, help="a folder with a package mlx_ctc")
    add("after", type=Path, help="another")
    add("--device", choices=["cpu", "gpu"], default="cpu")
    add("--shapes", help="TxNxCxS, several with commas between; default: a list")
    add("--turns", type=int, default=7)
    add("--kernels", action="store_true", help="also the time in kernels of a GPU")
    options = parser.parse_args()
    if options.kernels and options.device == "cpu":
        parser.error("--kernels are those of --device gpu")
    return options


def main():
    options = parse_options()
    shapes = options.shapes.split(",") if options.shapes else SHAPES[options.device]
    folders = options.before.resolve(), options.after.resolve()
    pairs = {shape: [new_process(threads=1) for _ in folders] for shape in shapes}
    prepared = [
        build.submit(prepare, folder, Case(shape, options.device, "float32", threads=1))
        for shape, pair in pairs.items()
        for folder, build in zip(folders, pair, strict=True)
    ]
    for preparation in prepared:
        preparation.result()

    turns = {"step": options.turns}
    if options.device == "gpu":
        turns["compiled step"] = options.turns
    if options.kernels:
        turns["kernels"] = 1  # of 30 steps
    print_row(["T x N x C x S", *turns], WIDTH)
    for shape, pair in pairs.items():
        cells = (compared(pair, *column) for column in turns.items())
        print_row([shape, *cells], WIDTH)


if __name__ == "__main__":
    main()
