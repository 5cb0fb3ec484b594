# Batches of no sequences, compiled and not. MLX 0.32.4 never returns from the sum of an
# empty array in a compiled function if the array comes from NumPy.

import subprocess
import sys

PROGRAM = """
import itertools, sys
import mlx.core as mx, numpy as np
sys.path.insert(0, sys.argv[1])
import ops
from mlx_ctc import ctc_loss, greedy_decode
from mlx_ctc.functional import REDUCTIONS

mx.set_default_device({"cpu": mx.cpu, "gpu": mx.gpu}[sys.argv[2]])
empty = np.array([], np.int32)
makers = {
    "NumPy": lambda: mx.array(empty),
    "list": lambda: mx.array([], mx.int32),
    "slice": lambda: mx.array([1, 2, 3])[3:],
    "lazy": lambda: mx.array(empty) + 0,
    "cast": lambda: mx.array(empty.astype(np.uint8)),
}
x = mx.zeros((4, 0, 3))
for targets, *lengths in itertools.product(makers, repeat=3):
    arrays = [makers[name]() for name in (targets, *lengths)]
    for wrap in (lambda f: f), mx.compile:
        for reduction in REDUCTIONS:
            loss = wrap(lambda x, *a: ctc_loss(x, *a, reduction=reduction))
            result = loss(x, *arrays)
            found = np.array(result)
            if reduction in ("mean", "mean_batch"):
                assert np.isnan(found), found
            else:
                assert (found == 0).all(), found
        mx.eval(wrap(mx.grad(lambda x, *a: ctc_loss(x, *a)))(x, *arrays))
        mx.eval(wrap(ops.all_results)(x, *arrays))
        mx.eval(wrap(greedy_decode)(x, arrays[1]))
print("done")
"""


def test_every_form_ends(device, request):
    command = [sys.executable, "-X", "faulthandler", "-c", PROGRAM]
    result = subprocess.run(
        [*command, str(request.path.parent), device.name],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.stdout == "done\n", result.stderr
