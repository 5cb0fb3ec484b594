# nn.CTCLoss: the function as a module, and nothing of its own.

import inspect

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from problems import random_problem

import mlx_ctc
from mlx_ctc.functional import REDUCTIONS

pytestmark = pytest.mark.usefixtures("device")


@pytest.mark.parametrize("blank", [0, 8])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_module_is_the_function(rng, with_logits, blank, reduction, zero_infinity):
    problem = random_problem(rng, blank=blank, with_logits=with_logits)
    problem.input_lengths[problem.target_lengths.argmax()] = 3
    options = {"blank": blank, "reduction": reduction, "zero_infinity": zero_infinity}
    module = mlx_ctc.nn.CTCLoss(**options, with_logits=with_logits)
    expected = mlx_ctc.ctc_loss(*problem.arrays(), **options, with_logits=with_logits)
    assert mx.array_equal(module(*problem.arrays()), expected)


def test_module_has_no_parameters():
    module = mlx_ctc.nn.CTCLoss()
    assert isinstance(module, nn.Module)
    assert module.parameters() == {}


def test_module_shows_its_options():
    shown = repr(mlx_ctc.nn.CTCLoss(3, "sum", True, with_logits=True))
    assert shown.startswith("CTCLoss(")
    for option in ["blank=3", "reduction='sum'", "zero_infinity=True"]:
        assert option in shown
    assert "with_logits=True, normalized=True, batch_first=False" in shown


def test_module_takes_the_functions_arguments():
    def arguments(callable):
        parameters = inspect.signature(callable).parameters
        return [
            (name, parameter.default, parameter.kind)
            for name, parameter in parameters.items()
            if name not in ("self", "stream")
        ]

    module = mlx_ctc.nn.CTCLoss
    of_both = arguments(module.__call__) + arguments(module)
    assert of_both == arguments(mlx_ctc.ctc_loss)


def test_module_takes_every_form_of_a_batch(rng):
    problem = random_problem(rng)
    expected = mlx_ctc.ctc_loss(*problem.arrays(), with_logits=True)
    module = mlx_ctc.nn.CTCLoss(with_logits=True, batch_first=True)
    scores = mx.array(problem.inputs.swapaxes(0, 1), mx.float32)
    frames = np.arange(30) < problem.input_lengths[:, None]
    pairs = zip(problem.targets.tolist(), problem.target_lengths, strict=True)
    loss = module(scores, [row[:length] for row, length in pairs], frames)
    assert loss.item() == expected.item()


def test_mean_of_mlx_is_mean_batch_here(rng):
    log_probs = nn.log_softmax(mx.array(rng.normal(size=(1, 4, 9)), mx.float32))
    labels = mx.array([[1], [2], [3], [4]])
    loss = mlx_ctc.nn.CTCLoss(reduction="mean_batch")(log_probs, labels)
    picked = nn.losses.nll_loss(log_probs[0], labels[:, 0], reduction="mean")
    assert loss.item() == pytest.approx(picked.item(), rel=1e-6)


def test_module_can_be_part_of_a_model(rng):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(9, 9)
            self.loss = mlx_ctc.nn.CTCLoss(with_logits=True)

        def __call__(self, x, *rest):
            return self.loss(self.linear(x), *rest)

    problem, model = random_problem(rng), Model()
    loss, gradients = nn.value_and_grad(model, Model.__call__)(model, *problem.arrays())
    assert loss.item() > 0
    assert mx.isfinite(gradients["linear"]["weight"]).all().item()
