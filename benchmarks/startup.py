"""Seconds until the first loss and gradient in a process on a CUDA GPU.

    python benchmarks/startup.py
    python benchmarks/startup.py --lengths 10,100,200,400,600 --turns 3 --json out.json

Every line is a new process. "wheel" has the kernels that this package carries, if it
does; the others have not. The first one has an empty folder for compiled kernels, the
later one finds what the first has left. "folder off" keeps nothing, and "by MLX" has no
NVRTC, so that MLX compiles the kernels. Columns, in seconds:

    MLX       MLX's own start: one addition on the GPU, evaluated
    first     the first loss and gradient, of the first length
    +S        the first with S labels, after those before it
    warm      the longest of the second steps of all lengths
    epoch     60 steps with 5 to 120 labels, one batch in ten smaller
              than 8 sequences
    kernels   of the package, loaded from the folder, compiled, left to MLX; in all
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

LENGTHS = "10,100,200,400,600"


def measure(lengths, T, N, C):
    """In this process: {column: seconds}, and how many kernels were compiled."""
    import mlx.core as mx

    from mlx_ctc import ctc_loss
    from mlx_ctc._ext import cuda_compilations

    if not mx.cuda.is_available():
        raise SystemExit("needs a CUDA GPU")

    def step(N, S):
        """Seconds of a loss and its gradient, waited for."""
        frames = max(T, 2 * S)
        logits = mx.random.normal((frames, N, C))
        targets = mx.random.randint(1, C, (N, S))
        mx.eval(logits, targets)
        begin = time.perf_counter()

        def loss(logits):
            return ctc_loss(logits, targets, frames, S, with_logits=True)

        mx.eval(mx.value_and_grad(loss)(logits))
        return time.perf_counter() - begin

    begin = time.perf_counter()
    mx.eval(mx.ones(8) + 1)
    seconds = {"MLX": time.perf_counter() - begin}
    seconds["first"] = step(N, lengths[0])
    for S in lengths[1:]:
        seconds[f"+{S}"] = step(N, S)
    seconds["warm"] = max(step(N, S) for S in lengths)
    seconds["epoch"] = sum(step(*batch) for batch in epoch(N))
    return seconds, cuda_compilations()


def epoch(N):
    """The (sequences, labels) of 60 batches."""
    shuffled = random.Random(1)
    for i in range(60):
        yield (shuffled.randint(1, 7) if i % 10 == 9 else N), shuffled.randint(5, 120)


def in_new_process(options, **variables):
    command = [sys.executable, __file__, "--child", "--lengths", options.lengths]
    command += ["--batch", options.batch]
    environment = {**os.environ, **variables}
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE)
    if output.returncode != 0:
        raise SystemExit(output.returncode)
    return json.loads(output.stdout)


def has_kernels():
    from mlx_ctc._ext import shipped_folder

    folder = shipped_folder()
    return folder != "" and Path(folder).exists()


def turn(options):
    """{line: (seconds, compilations)} of one process for each line."""
    with TemporaryDirectory() as folder:
        # Of what NVIDIA's libraries keep, too, the first process finds nothing.
        none = {"MLX_CTC_KERNELS": "off", "CUDA_CACHE_PATH": f"{folder}/nvidia"}
        lines = {
            "first process": none | {"MLX_CTC_CACHE": folder},
            "later process": none | {"MLX_CTC_CACHE": folder},
            "folder off": none | {"MLX_CTC_CACHE": "off"},
        }
        if not options.no_mlx:
            missing = str(Path(folder) / "missing.so")
            lines["by MLX"] = none | {"MLX_CTC_NVRTC": missing}
        if has_kernels():
            lines = {"wheel": {"MLX_CTC_CACHE": "off"}} | lines
        return {
            line: in_new_process(options, **variables)
            for line, variables in lines.items()
        }


def show(turns):
    columns = turns[0]["first process"][0]
    print(" " * 14, *(column.rjust(7) for column in columns), " kernels")
    for line in turns[0]:
        of_line = [turn[line][0] for turn in turns]
        cells = (f"{median(t[column] for t in of_line):7.3f}" for column in columns)
        done = turns[0][line][1]
        kernels = ", ".join(
            str(done[name]) for name in ("shipped", "loaded", "compiled", "failed")
        )
        print(line.ljust(14), *cells, "", kernels)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", default=LENGTHS, help="labels of the steps")
    parser.add_argument(
        "--batch", default="128x128x32", help="TxNxC; T is at least 2 S"
    )
    parser.add_argument("--turns", type=int, default=3, help="the median is shown")
    parser.add_argument("--no-mlx", action="store_true", help="without the last line")
    parser.add_argument("--json", type=Path, help="writes all turns to a file")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        lengths = [int(S) for S in options.lengths.split(",")]
        print(json.dumps(measure(lengths, *map(int, options.batch.split("x")))))
        return
    turns = [turn(options) for _ in range(options.turns)]
    show(turns)
    if options.json:
        options.json.write_text(json.dumps(turns, indent=1))


if __name__ == "__main__":
    main()
