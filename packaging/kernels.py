"""Compiles the usual CUDA kernels into a folder, for a wheel that carries them.

    pip install ".[cpu]" nvidia-cuda-nvrtc-cu12 nvidia-nvfatbin-cu12
    python packaging/kernels.py build/kernels
    python packaging/build_wheel.py --mlx all --kernels build/kernels

The kernels are those of the mlx_ctc that is installed, which has to be of this source:
kernels are found by a hash of their text. Needs no GPU. The folder is for any Python,
processor and release of MLX. What it does not have is compiled when it is used.
"""

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlx.core as mx

from mlx_ctc._ext import cuda_texts, ship_kernel

# Code for one runs on all of the same major version that are not older: Ampere and Ada,
# Hopper, Blackwell of data centres, Blackwell of workstations.
ARCHITECTURES = [80, 90, 100, 120]

# A text depends on sizes rounded up, for which these stand: classes that make a row
# longer or shorter than a threadgroup or share its normaliser among other threads, and
# labels that fill the windows of 32.
FEW_CLASSES = [4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256]
MANY_CLASSES = [1024, 20000]
WINDOW = 32

# Where NVIDIA's packages put the libraries of CUDA 12. What they compile also runs with
# the drivers of later ones.
NVRTC = "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"
NVFATBIN = "nvidia/nvfatbin/lib/libnvfatbin.so.12"


def texts(dtype, classes, most_labels, plans, **options):
    """{function: text} of plans for any number of labels up to the most.

    Long sequences have a kernel more than short ones.
    """
    found = {}
    for C in classes:
        for S in range(WINDOW, most_labels + 1, WINDOW):
            for T in 2 * S, 2 * S + 1024:
                by_plan = cuda_texts((T, 8, C, S), dtype, **options)
                for plan in plans:
                    found.update(by_plan[plan])
    return found


def usual():
    """{function: text} of what most models need: the kernels of a wheel."""
    step = ["loss", "gradient"]
    found = {}
    for with_logits, most_labels in (True, 640), (False, 512):
        options = {"with_logits": with_logits}
        found |= texts(mx.float32, FEW_CLASSES, most_labels, step, **options)
        found |= texts(mx.float32, MANY_CLASSES, 256, step, **options)
        plans = ["align", "posteriors"]
        found |= texts(mx.float32, [32], most_labels, plans, **options)
    found |= texts(mx.bfloat16, FEW_CLASSES, 256, step)
    found |= texts(mx.bfloat16, MANY_CLASSES, 128, step)
    return found


def library(name, variable):
    """The file that the environment variable names, or one that pip has installed."""
    if named := os.environ.get(variable):
        return named
    for folder in sys.path:
        if Path(folder, name).exists():
            return str(Path(folder, name))
    raise SystemExit(
        f"{name} is not installed: pip install nvidia-cuda-nvrtc-cu12 "
        f"nvidia-nvfatbin-cu12, or set {variable}"
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--architectures",
        default=",".join(map(str, ARCHITECTURES)),
        help="with commas between; default: %(default)s",
    )
    arguments = parser.parse_args()
    libraries = library(NVRTC, "MLX_CTC_NVRTC"), library(NVFATBIN, "MLX_CTC_NVFATBIN")
    found = usual()
    folder = str(arguments.folder.resolve())
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for architecture in map(int, arguments.architectures.split(",")):
            sizes = [
                threads.submit(
                    ship_kernel, *libraries, architecture, function, text, folder
                )
                for function, text in found.items()
            ]
            size = sum(size.result() for size in sizes) / 1e6
            print(f"sm_{architecture}: {len(found)} kernels, {size:.2f} MB")


if __name__ == "__main__":
    main()
