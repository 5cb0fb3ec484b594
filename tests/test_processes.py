# Worker processes of a process that has evaluated: started anew, since MLX does not
# survive a fork.

import multiprocessing

import mlx.core as mx
import pytest


def loss_in_a_child(results):
    from mlx_ctc import ctc_loss

    results.put(ctc_loss(mx.zeros((4, 1, 3)), [[1]], 4, 1, stream=mx.cpu).item())


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_computes_the_same(method):
    from mlx_ctc import ctc_loss

    expected = ctc_loss(mx.zeros((4, 1, 3)), [[1]], 4, 1, stream=mx.cpu).item()
    context = multiprocessing.get_context(method)
    results = context.Queue()
    child = context.Process(target=loss_in_a_child, args=(results,))
    child.start()
    assert results.get(timeout=60) == expected
    child.join(60)
    assert child.exitcode == 0
