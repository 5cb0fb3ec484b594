# Results of calls with values out of range, read in every way that there is: an error
# that names the fault, or NaN, and never what the memory held before.

import re
import subprocess
import sys

import mlx.core as mx
import numpy as np
import ops
import pytest
from ops import OPS
from problems import random_problem

from mlx_ctc import ctc_loss, forced_align, greedy_decode

pytestmark = pytest.mark.usefixtures("device")

T, C, S = 6, 5, 2
ONES = 1.5 * np.ones(4096, np.float32)


def dirty_memory():
    """Fill the memory that MLX hands out next with a number that no result is."""
    arrays = [mx.array(ONES[:size]) for size in (1, 2, 6, 12, 30, 36, 64, 1024)]
    mx.eval(arrays)


def call(function):
    """The results for one sequence with a label that is not a class."""
    dirty_memory()
    return function(mx.zeros((T, 1, C)), mx.array([[1, 99]]) + 0)


def gradient(x, targets):
    return mx.grad(lambda x: ctc_loss(x, targets, T, S, zero_infinity=True))(x)


def scores_of(op):
    return lambda x, y: ops.results(op, x, y, T, S)[-1]


FUNCTIONS = {
    **{op: scores_of(op) for op in OPS},
    "mean loss": lambda x, y: ctc_loss(x, y, T, S),
    "losses": lambda x, y: ctc_loss(x, y, T, S, reduction="none", zero_infinity=True),
    "gradient": gradient,
    "greedy": lambda x, y: greedy_decode(x, mx.array([T + 1]) + 0)[2],
}


def evaluated(array):
    mx.eval(array)
    return array


def async_evaluated(array):
    mx.async_eval(array)
    return array


def from_file(array, path):
    mx.save(str(path / "saved.npy"), array)
    return np.load(path / "saved.npy")


def through_dlpack(array):
    if mx.default_device() == mx.gpu:
        pytest.skip("NumPy takes DLPack arrays from the CPU alone")
    return np.from_dlpack(array)


READERS = {
    "item": lambda a, _: [x.item() for x in a.flatten()],
    "tolist": lambda a, _: a.tolist(),
    "np.array": lambda a, _: np.array(a),
    "np.asarray": lambda a, _: np.asarray(a),
    "np.array after eval": lambda a, _: np.array(evaluated(a)),
    "np.array after async_eval": lambda a, _: np.array(async_evaluated(a)),
    "memoryview": lambda a, _: np.array(memoryview(a).tolist()),
    "dlpack": lambda a, _: through_dlpack(a),
    "file": from_file,
    "copy": lambda a, _: np.array(mx.array(a)),
    "operation": lambda a, _: np.array(a + 0),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_reads_nan(function, reader, tmp_path):
    result = call(FUNCTIONS[function])
    for _ in range(2):
        assert np.isnan(READERS[reader](result, tmp_path)).all()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_shows_nan(function):
    shown = repr(call(FUNCTIONS[function]))
    assert "nan" in shown
    assert not re.search(r"\d\.\d", shown)


@pytest.mark.parametrize("reader", READERS)
def test_alignment_is_blank(reader, tmp_path):
    path, _ = call(lambda x, y: forced_align(x, y, T, S))
    assert not np.any(READERS[reader](path, tmp_path))


@pytest.mark.parametrize("reader", READERS)
def test_after_a_caught_error(reader, tmp_path):
    with pytest.raises(ValueError, match=r"targets\[0, 1\] in \[0, 5\) but got 99"):
        ctc_loss(mx.zeros((T, 1, C)), [[1, 99]], T, S)
    assert np.isnan(READERS[reader](call(FUNCTIONS["losses"]), tmp_path)).all()


def test_neighbours_are_right(rng, device):
    problem = random_problem(rng)
    arrays = problem.arrays()
    expected = np.array(ctc_loss(*arrays, with_logits=True, reduction="none"))
    lengths = problem.input_lengths.copy()
    lengths[[1, 4]] = 31
    losses = ctc_loss(
        arrays[0],
        arrays[1],
        mx.array(lengths) + 0,
        arrays[3],
        with_logits=True,
        reduction="none",
    )
    expected[[1, 4]] = np.nan
    np.testing.assert_array_equal(losses, expected)


# Good work and bad, on two streams and two threads, in a process of its own: it
# ends, and every good result in it is right.
LOOP = """
import sys, threading
import mlx.core as mx, numpy as np
sys.path.insert(0, sys.argv[1])
import ops
from problems import random_problem
from mlx_ctc import ctc_loss

device = {"cpu": mx.cpu, "gpu": mx.gpu}[sys.argv[2]]
mx.set_default_device(device)
problem = random_problem(np.random.default_rng(0), T=12, N=3, S=3)
scores, targets, lengths, target_lengths = problem.arrays()
bad = problem.targets.copy()
bad[1, 0] = 99
target_lengths = [3, 3, 3]  # known on every device
rest = lengths, target_lengths
def losses(targets, stream):
    return ctc_loss(
        scores, targets, *rest, with_logits=True, reduction="none", stream=stream)
expected = np.array(losses(targets, None))
faults = []
def expect(is_right, what):
    if not is_right:
        faults.append(what)

def work(seed):
    mx.set_default_device(device)
    rng = np.random.default_rng(seed)
    streams = [mx.new_stream(device), mx.new_stream(device)]
    for _ in range(1000):
        stream = streams[rng.integers(2)]
        kind = rng.integers(5)
        if kind == 0:
            try:
                losses(bad, stream)
                faults.append("not refused")
            except ValueError as error:
                expect("targets[1, 0]" in str(error), str(error))
        elif kind == 1:
            result = losses(mx.add(mx.array(bad), 0, stream=stream), stream)
            mx.async_eval(result)
        elif kind == 2:
            result = np.array(losses(mx.add(mx.array(bad), 0, stream=stream), stream))
            expect(np.isnan(result).tolist() == [False, True, False], result)
            expect((result == expected)[[0, 2]].all(), result)
        elif kind == 3:
            lazy = mx.add(mx.array(bad), 0, stream=stream)
            mx.eval(ops.all_results(scores, lazy, *rest, stream=stream))
        good = np.array(losses(targets, stream))
        expect((good == expected).all(), good)

threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
mx.eval(mx.ones(3) + 1)
print(faults[:3])
"""


def test_two_thousand_bad_calls_among_good_ones(device, request):
    result = subprocess.run(
        [sys.executable, "-c", LOOP, str(request.path.parent), device.name],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.stdout.strip() == "[]"
