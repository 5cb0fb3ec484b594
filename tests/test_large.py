# Tensors of more than 2^31 elements: every offset is 64 bits wide.

import os

import mlx.core as mx
import numpy as np
import pytest
from problems import loss_and_gradient

from mlx_ctc import ctc_posteriors

GiB = 2**30


def needs_memory(bytes_needed):
    try:
        available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        available = mx.device_info()["memory_size"] // 2
    if available < bytes_needed:
        pytest.skip(f"needs {bytes_needed / GiB:.0f} GiB of memory")


@pytest.mark.slow
def test_gradient_beyond_two_billion_elements(device):
    needs_memory(6 * GiB)
    T, N, C = 4, 8200, 65536
    assert T * N * C > 2**31
    logits = mx.broadcast_to(mx.zeros((1, 1, C), mx.float16), (T, N, C))
    targets = np.full((N, 1), C - 1)
    targets[-1] = C - 2
    cotangent = mx.zeros(N)
    cotangent[-1] = 1024
    loss, gradient = loss_and_gradient(
        logits, targets, [T] * N, [1] * N, with_logits=True, cotangent=cotangent
    )
    paths = T * (T + 1) // 2
    np.testing.assert_allclose(loss, T * np.log(C) - np.log(paths), 1e-6)

    last = np.array(gradient[:, -1]).astype(np.float32) / 1024
    t = np.arange(T)
    gamma = (t + 1) * (T - t) / paths
    np.testing.assert_allclose(last[:, C - 2], 1 / C - gamma, 1e-3)
    np.testing.assert_allclose(last[:, 0], 1 / C - (1 - gamma), 1e-3)
    np.testing.assert_allclose(last[:, 1 : C - 2], 1 / C, 1e-3)
    assert not np.array(gradient[:, :100]).any()


@pytest.mark.slow
@pytest.mark.parametrize("axis", [0, 1], ids=["frames", "items"])
def test_stride_beyond_two_billion_elements(device, rng, axis):
    needs_memory(7 * GiB)
    inputs = mx.array(rng.normal(size=(3, 3, 5)), mx.float16)
    padding = 2**30 // 5
    # On the CPU: MLX 0.32.4's pad fails for so many elements on CUDA.
    far_apart = mx.pad(inputs, [(0, 0), (0, padding), (0, 0)], stream=mx.cpu)
    mx.eval(far_apart)
    assert 2 * far_apart[0].size > 2**31
    view = far_apart[:, :3].swapaxes(0, axis)
    rest = np.array([[1, 2], [3, 3], [4, 0]]), [3, 3, 3], [2, 2, 1]
    loss, gradient = loss_and_gradient(view, *rest, with_logits=True)
    expected = loss_and_gradient(inputs.swapaxes(0, axis), *rest, with_logits=True)
    assert mx.array_equal(loss, expected[0])
    assert mx.array_equal(gradient, expected[1])


@pytest.mark.slow
def test_posteriors_of_more_than_two_billion_frames():
    needs_memory(10 * GiB)
    T, N = 2**16, 2**15 + 1
    scores = mx.broadcast_to(mx.zeros(()), (T, N, 1))
    lengths = [0] * (N - 1) + [T]
    empty = mx.zeros((N, 0), mx.int32)
    result = ctc_posteriors(scores, empty, lengths, 0, stream=mx.cpu)
    assert result.size > 2**31
    assert np.array(result[-1], copy=False).min() == 1
    assert not np.array(result[:100], copy=False).any()
