# The report for a machine with a GPU that nobody here has.

import platform

import mlx.core as mx
import pytest

import mlx_ctc
from mlx_ctc import check


@pytest.fixture
def cpu_for_gpu(monkeypatch):
    monkeypatch.setattr(mx, "gpu", mx.cpu)


def test_equal_devices_do_not_differ(cpu_for_gpu):
    found = check.compare((20, 3, 7, 5, 1), mx.float16, True, True)
    assert found.differences == dict.fromkeys(check.limits(mx.float16), 0)


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
    report = capsys.readouterr().out
    assert "0 of 3 agree" in report
    assert "gradient (limit 1e-05) differ" in report


def test_a_quick_check_takes_fewer_cases(cpu_for_gpu, capsys):
    assert check.main(["--quick"]) == 0
    report = capsys.readouterr().out
    assert "2 of 2 agree" in report
    assert "expect about 20 seconds" in report


def test_an_error_names_the_kernel_and_what_it_means(cpu_for_gpu, monkeypatch, capsys):
    def refuse(*arrays):
        raise ValueError("Thread group size (512) is greater than the maximum (448)")

    monkeypatch.setattr(check, "PROBLEMS", [(20, 3, 7, 5, 1, "small")])
    monkeypatch.setattr(check, "DTYPES", [mx.float32])
    monkeypatch.setattr(mx, "eval", refuse)
    monkeypatch.setattr(
        check, "problem", lambda *_: (mx.zeros((4, 1, 3)), mx.array([[1]]), 4, 1)
    )
    assert check.main() == 1
    report = capsys.readouterr().out
    assert "FAILED 20x3x7x5 float32 logits: the loss, kernels ctc_normalisers" in report
    assert "too many registers for the number of threads in its launch" in report


def test_nan_differs_from_a_number():
    nan, number = mx.array([mx.nan]), mx.array([1.0])
    assert check.greatest_difference(nan, number) == mx.inf
    assert check.greatest_difference(nan, nan) == 0


@pytest.mark.skipif(mx.is_available(mx.gpu), reason="there is a GPU")
def test_a_machine_without_gpu_compares_nothing(capsys):
    assert check.main() == 1
    assert "no GPU" in capsys.readouterr().out


def test_a_report_names_versions_machine_and_settings(capsys, monkeypatch):
    monkeypatch.setenv("MLX_CTC_NUM_THREADS", "3")
    monkeypatch.setenv("MLX_CTC_CACHE", "/home/somebody/kernels")
    assert check.main(["--report"]) == 0
    report = capsys.readouterr().out
    for word in (
        f"mlx-ctc {mlx_ctc.__version__}",
        f"MLX {mx.__version__}",
        f"Python {platform.python_version()}",
        platform.machine(),
        "MLX_CTC_NUM_THREADS: 3",
        "MLX_CTC_CACHE: (a path)",
        "a loss on the CPU is 1.686399, which is right",
    ):
        assert word in report
    assert "somebody" not in report


def test_a_report_of_a_wrong_loss_says_so(capsys, monkeypatch):
    monkeypatch.setattr(mlx_ctc, "ctc_loss", lambda *_, **__: mx.array(1.7))
    assert check.main(["--report"]) == 1
    assert "wrong: it should be 1.686399" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not mx.is_available(mx.gpu), reason="MLX reports no GPU")
def test_every_variant_agrees_with_the_cpu(capsys):
    assert check.main() == 0, capsys.readouterr().out


def test_a_model_that_is_right_has_a_small_loss(cpu_for_gpu):
    batch = check.problem(200, 8, 40, 30, 0, mx.float32)
    kind = {"with_logits": True, "normalized": True}
    loss, _ = check.loss_and_gradient(*batch, **kind, device=mx.cpu)
    losses = sorted(loss.tolist())
    assert losses[-1] == mx.inf  # the one that does not fit
    assert losses[0] > 0
    assert losses[-2] < 200 / 100
