# Memory: a step gives back what it took, and no step takes a table of the batch.

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from ops import OPS
from problems import random_problem

from mlx_ctc import ctc_loss

MiB = 2**20


def step(problem):
    inputs, *rest = problem.arrays()

    def loss(x):
        return ctc_loss(x, *rest, with_logits=True)

    value, gradient = mx.value_and_grad(loss)(inputs)
    mx.eval(value, gradient)


def memory_in_use():
    """In bytes. MLX frees a GPU's arrays in a thread of its own, a moment later."""
    mx.synchronize()
    mx.clear_cache()
    return mx.get_active_memory()


def test_a_thousand_steps_leave_nothing_behind(device, rng):
    problem = random_problem(rng)
    for _ in range(10):
        step(problem)
    before = memory_in_use()
    for _ in range(1000):
        step(problem)
    assert memory_in_use() <= before


def test_refused_steps_leave_nothing_behind(rng):
    problem = random_problem(rng)
    problem.input_lengths[1] = 31
    active = []
    for _ in range(20):
        arrays = problem.arrays()
        with pytest.raises(ValueError, match="input_lengths"):
            ctc_loss(arrays[0], *map(np.array, arrays[1:]))
        active.append(memory_in_use())
    assert active[-1] == active[0]


@pytest.mark.parametrize("function", OPS.values(), ids=OPS)
def test_batch_first_scores_are_not_copied(device, function):
    def needed(scores, **options):
        mx.eval(scores)
        before = memory_in_use()
        mx.reset_peak_memory()
        mx.eval(function(scores, [[1, 2]] * 64, with_logits=True, **options))
        return mx.get_peak_memory() - before

    scores = mx.zeros((64, 500, 64))
    frames_first = needed(mx.contiguous(mx.swapaxes(scores, 0, 1)))
    assert needed(scores, batch_first=True) < frames_first + scores.nbytes / 4


KEPT = """
import resource
import mlx.core as mx, numpy as np
from mlx_ctc import ctc_loss
from problems import random_problem
from test_memory import MiB, step
mx.set_default_device(mx.cpu)
problem = random_problem(np.random.default_rng(0), T=100, N=20, C=5000)  # 38 MiB
size = 4 * problem.inputs.size
"""


def run_where_mlx_keeps_32_mib(body):
    limit = mx.set_cache_limit(32 * MiB)
    mx.set_cache_limit(limit)
    if limit != 32 * MiB:
        pytest.skip("MLX's allocator on Linux without a GPU, from 0.32.0 on")
    subprocess.run(
        [sys.executable, "-c", KEPT + body], cwd=Path(__file__).parent, check=True
    )


def test_a_large_gradient_is_made_of_kept_memory():
    run_where_mlx_keeps_32_mib("""
inputs, *rest = problem.arrays()
gradient = mx.grad(lambda x: ctc_loss(x, *rest, with_logits=True))
for _ in range(3):
    mx.eval(gradient(inputs))
assert mx.get_active_memory() < 1.5 * size, mx.get_active_memory()
assert size <= mx.get_cache_memory() <= size + 32 * MiB, mx.get_cache_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    mx.eval(gradient(inputs))
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
assert faults < 1000, faults  # 5000 and more if they were fresh
mx.clear_cache()
assert mx.get_cache_memory() == 0
""")


@pytest.mark.parametrize("limit", [0, 16, 200])
def test_the_users_limit_of_kept_memory_stays(limit):
    run_where_mlx_keeps_32_mib(f"""
mx.set_cache_limit({limit} * MiB)
step(problem)
assert mx.set_cache_limit({limit} * MiB) == {limit} * MiB
assert mx.get_cache_memory() <= {limit} * MiB
""")


def test_a_limit_that_the_user_sets_later_stays():
    run_where_mlx_keeps_32_mib("""
step(problem)
assert mx.set_cache_limit(8 * MiB) == 32 * MiB + size
larger = random_problem(np.random.default_rng(0), T=110, N=20, C=5000)
step(larger)
step(larger)
assert mx.set_cache_limit(8 * MiB) == 8 * MiB
""")


def peak():
    """The most memory, in MiB, that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss begins with the parent's
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MiB


def peak_of_a_process(body):
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import test_memory\n{body}\nprint(test_memory.peak())",
        ],
        cwd=Path(__file__).parent,
        env={**os.environ, "MLX_CTC_NUM_THREADS": "2"},
        check=True,
        capture_output=True,
        text=True,
    )
    return float(result.stdout)


PROBLEM = """
import mlx.core as mx, numpy as np
from problems import random_problem
from test_memory import step
mx.set_default_device(mx.cpu)
problem = random_problem(np.random.default_rng(0), T={T}, N={N}, C={C}, S={S})
for _ in range({steps}):
    step(problem)
"""


def test_a_process_does_not_grow():
    shape = {"T": 50, "N": 8, "C": 12, "S": 10}
    few = peak_of_a_process(PROBLEM.format(steps=20, **shape))
    many = peak_of_a_process(PROBLEM.format(steps=1000, **shape))
    assert many < few + 4


def test_a_batch_has_no_table_of_states():
    # (N, T, L) floats would take 64 * 1000 * 401 * 4 bytes: 98 MiB, and torch two.
    shape = {"T": 1000, "N": 64, "C": 4, "S": 200}
    without = peak_of_a_process(PROBLEM.format(steps=0, **shape))
    assert peak_of_a_process(PROBLEM.format(steps=1, **shape)) < without + 40


ALIGNMENT = """
import mlx.core as mx, numpy as np
from mlx_ctc import forced_align
T, S, C = {T}, {S}, 32
rng = np.random.default_rng(0)
log_probs = rng.standard_normal((T, C), np.float32) - 20
labels = 1 + np.arange(S) % (C - 1)
path = np.zeros(T, int)
path[np.sort(rng.choice(T, S, replace=False))] = labels
log_probs[np.arange(T), path] = 0
log_probs = mx.array(log_probs[:, None])
if {aligned}:
    aligned, _ = forced_align(log_probs, labels[None], T, S, stream=mx.cpu)
    assert np.array_equal(aligned[0], path)
"""


def bytes_of_an_alignment(T, S):
    without = peak_of_a_process(ALIGNMENT.format(T=T, S=S, aligned=False))
    return MiB * (peak_of_a_process(ALIGNMENT.format(T=T, S=S, aligned=True)) - without)


def test_an_alignment_has_no_table_of_moves():
    # 2 bits for each frame and state would take 200 MB.
    assert bytes_of_an_alignment(T=50_000, S=8000) < 30e6


@pytest.mark.slow
def test_ten_hours_are_aligned_within_two_gigabytes():
    """50 frames a second and 4 labels; a table of moves would take 135 GB."""
    assert bytes_of_an_alignment(T=1_800_000, S=150_000) < 1e9


@pytest.mark.slow
def test_ten_thousand_labels_in_a_hundred_thousand_frames():
    """Closed form at a size whose tables would take 32 GB; in a few hundred MiB."""
    peak = peak_of_a_process("""
from math import log
import mlx.core as mx, numpy as np
from reference import log_paths
from problems import loss_and_gradient
mx.set_default_device(mx.cpu)
T, C, S = 100_000, 4, 10_000
targets = np.arange(S)[None] % 3 + 1
loss, gradient = loss_and_gradient(
    mx.zeros((T, 1, C)), targets, [T], [S], with_logits=True
)
expected = T * log(C) - log_paths(T, S)
assert abs(loss.item() / expected - 1) < 1e-7, (loss.item(), expected)
gradient = np.array(gradient)[:, 0]
assert abs(gradient.sum(axis=1)).max() < 1e-4
# Frames and labels read from either end are the same problem, up to the labels' names.
assert abs(gradient - gradient[::-1][:, [0, 1, 3, 2]]).max() < 1e-4
""")
    assert peak < 500
