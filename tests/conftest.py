# What every test may ask for: a device, a dtype, a mode and random numbers.

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import settings
from problems import TOLERANCE

# On a CUDA GPU an example may compile its kernels, for a second:
# pytest --hypothesis-profile gpu
settings.register_profile("cpu", max_examples=150, deadline=None)
settings.register_profile("gpu", max_examples=12, deadline=None)
settings.load_profile("cpu")


@pytest.fixture(
    params=[
        pytest.param(mx.cpu, id="cpu"),
        pytest.param(mx.gpu, id="gpu", marks=pytest.mark.gpu),
    ]
)
def device(request):
    """The device a test runs on, made MLX's default while it runs."""
    if not mx.is_available(request.param):
        pytest.skip("MLX reports no GPU")
    previous = mx.default_device()
    mx.set_default_device(request.param)
    yield request.param
    mx.set_default_device(previous)


@pytest.fixture(
    params=TOLERANCE,
    ids=lambda dtype: str(dtype).removeprefix("mlx.core."),
)
def dtype(request, device):
    if request.param == mx.float64 and device == mx.gpu:
        pytest.skip("MLX has float64 on the CPU only")
    return request.param


@pytest.fixture(params=[False, True], ids=["log_probs", "logits"])
def with_logits(request):
    return request.param


@pytest.fixture(params=[9, 120], ids=["few_classes", "many_classes"])
def classes(request):
    """How many: of many, the CPU looks at those in the targets alone."""
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(2006)


def pytest_report_header(config):
    """Says once why so many tests are skipped where there is no GPU."""
    if mx.is_available(mx.gpu):
        return f"MLX {mx.__version__} with a GPU"
    return f"MLX {mx.__version__} reports no GPU: tests on it are skipped"
