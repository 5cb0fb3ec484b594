# The report for a machine with a GPU that nobody here has.

import mlx.core as mx
import pytest

from mlx_ctc import check


@pytest.fixture
def cpu_for_gpu(monkeypatch):
    monkeypatch.setattr(mx, "gpu", mx.cpu)


def test_equal_devices_do_not_differ(cpu_for_gpu):
    found = check.compare((20, 3, 7, 5, 1), mx.float16, with_logits=True)
    assert (found.loss, found.gradient) == (0, 0)


def test_a_wrong_gradient_is_reported(cpu_for_gpu, monkeypatch, capsys):
    def wrong(*arrays, device, **options):
        calls.append(device)
        loss, gradient = right(*arrays, device=device, **options)
        return loss, gradient + 1e-4 * (len(calls) % 2)

    calls = []
    right = check.loss_and_gradient
    monkeypatch.setattr(check, "loss_and_gradient", wrong)
    monkeypatch.setattr(check, "PROBLEMS", [(20, 3, 7, 5, 1, "small")])
    monkeypatch.setattr(check, "DTYPES", [mx.float32])
    assert check.main() == 1
    assert "0 of 2 agree" in capsys.readouterr().out


def test_nan_differs_from_a_number():
    nan, number = mx.array([mx.nan]), mx.array([1.0])
    assert check.greatest_difference(nan, number) == mx.inf
    assert check.greatest_difference(nan, nan) == 0


@pytest.mark.skipif(mx.is_available(mx.gpu), reason="there is a GPU")
def test_a_machine_without_gpu_compares_nothing(capsys):
    assert check.main() == 1
    assert "no GPU" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not mx.is_available(mx.gpu), reason="MLX reports no GPU")
def test_every_variant_agrees_with_the_cpu(capsys):
    assert check.main() == 0, capsys.readouterr().out
