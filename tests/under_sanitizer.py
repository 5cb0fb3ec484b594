"""Small calls of every op on the GPU, for compute-sanitizer.

    compute-sanitizer --tool memcheck python tests/under_sanitizer.py
    compute-sanitizer --tool racecheck --kernel-name kernel_substring=ctc \\
        python tests/under_sanitizer.py

The other tools are initcheck and synccheck. `--kernel-name` leaves out MLX's kernels,
which takes less time; initcheck then takes what those have written for unwritten, and
without it reports MLX's copies of buffers that are not full.
"""

import sys
from dataclasses import replace

import mlx.core as mx
import numpy as np
import ops
from exact import confident
from problems import random_problem

from mlx_ctc import greedy_decode

# One window, several, rounds of them; few classes and many. MLX makes constants of
# the lengths of fewer than 8 sequences.
SIZES = [
    {"T": 40, "N": 3, "C": 20, "S": 10},
    {"T": 90, "N": 9, "C": 12, "S": 40},
    {"T": 70, "N": 9, "C": 2000, "S": 33},
    {"T": 300, "N": 3, "C": 12, "S": 140},
    {"T": 700, "N": 2, "C": 40, "S": 600},
]


def bad_problems(problem):
    """The problem with NaN, and with what must not be used to index an array."""
    C = problem.inputs.shape[2]
    return {
        "NaN": replace(problem, inputs=problem.inputs * np.nan),
        "label out of range": replace(problem, targets=problem.targets + C),
        "length out of range": replace(
            problem, input_lengths=problem.input_lengths + 1000
        ),
    }


def call_every_op(problem, dtype=mx.float32):
    """The sum of what each op gives, so that one sees that it ran."""
    arrays = problem.arrays(dtype)
    results = [
        *problem.run(dtype),
        *ops.all_results(*arrays, **problem.options),
        *greedy_decode(arrays[0], arrays[2], **problem.options),
    ]
    return [mx.sum(result).item() for result in results]


def main():
    if not mx.is_available(mx.gpu):
        sys.exit("[under_sanitizer] MLX reports no GPU.")
    mx.set_default_device(mx.gpu)
    rng = np.random.default_rng(0)
    for sizes in SIZES:
        log_probs = random_problem(rng, **sizes, with_logits=False)
        problems = {
            "logits": random_problem(rng, **sizes),
            "log_probs": log_probs,
            "any scores": replace(log_probs, normalized=False),
        }
        for name, problem in problems.items():
            for dtype in (mx.float32, mx.bfloat16):
                print(sizes, name, dtype, call_every_op(problem, dtype))
    for with_logits in (True, False):
        for T, C in (300, 40), (700, 300):  # refine alone, and with factors
            problem = confident(rng, T, C, 60, 12, with_logits, undecided=0)
            print("confident", T, C, call_every_op(problem))
    for name, problem in bad_problems(random_problem(rng, N=9)).items():
        print(name, call_every_op(problem))


if __name__ == "__main__":
    main()
