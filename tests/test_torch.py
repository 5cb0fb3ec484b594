# torch.nn.functional.ctc_loss in float64 agrees, in every form, where it is right.

import mlx.core as mx
import numpy as np
import pytest
from problems import (
    assert_gradient_close,
    assert_loss_close,
    loss_and_gradient,
    random_problem,
)

from mlx_ctc import ctc_loss

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("device")

REDUCTIONS = ["none", "sum", "mean"]


def torch_loss_and_gradient(problem, inputs=None, *target_and_lengths, **options):
    """Both in float64, the gradient that of the loss's sum."""
    if inputs is None:
        inputs = problem.inputs
        target_and_lengths = (
            problem.targets,
            problem.input_lengths,
            problem.target_lengths,
        )
    inputs = torch.tensor(inputs).requires_grad_()
    log_probs = inputs.log_softmax(-1) if problem.with_logits else inputs
    loss = torch.nn.functional.ctc_loss(
        log_probs, *map(torch.as_tensor, target_and_lengths), problem.blank, **options
    )
    loss.sum().backward()
    return loss.detach().numpy(), inputs.grad.numpy()


def compare(problem, *arguments, **options):
    """Compare loss and gradient of the same call; by default the padded form."""
    expected_loss, expected_gradient = torch_loss_and_gradient(
        problem, *arguments, **options
    )
    inputs, *rest = arguments or problem.arrays()
    rest = [mx.array(a) if isinstance(a, np.ndarray) else a for a in rest]

    def loss(x):
        return ctc_loss(x, *rest, with_logits=problem.with_logits, **ours).sum()

    ours = {"blank": problem.blank, **options}
    inputs = mx.array(inputs, mx.float32)
    value = ctc_loss(inputs, *rest, with_logits=problem.with_logits, **ours)
    assert value.shape == expected_loss.shape
    assert_loss_close(value, expected_loss)
    assert_gradient_close(mx.grad(loss)(inputs), expected_gradient)


def concatenated(problem):
    rows = zip(problem.targets, problem.target_lengths, strict=True)
    return np.concatenate([row[:length] for row, length in rows])


def as_float32_holds(problem):
    problem.inputs = problem.inputs.astype(np.float32).astype(np.float64)
    return problem


@pytest.fixture
def problem(rng, with_logits):
    return as_float32_holds(random_problem(rng, blank=3, with_logits=with_logits))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_padded_targets(problem, reduction):
    compare(problem, reduction=reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_concatenated_targets(problem, reduction):
    lengths = problem.input_lengths, problem.target_lengths
    arguments = problem.inputs, concatenated(problem), *lengths
    compare(problem, *arguments, reduction=reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("form", [tuple, list])
def test_lengths_of_python_integers(problem, reduction, form):
    lengths = problem.input_lengths.tolist(), problem.target_lengths.tolist()
    arguments = problem.inputs, problem.targets, *map(form, lengths)
    compare(problem, *arguments, reduction=reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("form", [int, np.array, lambda t: [t]])
def test_unbatched(problem, reduction, form):
    arguments = problem.inputs[:, 0], problem.targets[0], form(25), form(6)
    problem.targets = problem.targets[:1, :6]
    arguments = problem.inputs[:, 0], problem.targets[0], form(25), form(6)
    compare(problem, *arguments, reduction=reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_zeroed_infinity(problem, reduction):
    problem.target_lengths[:] = 8
    problem.input_lengths[2:4] = 7
    compare(problem, reduction=reduction, zero_infinity=True)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_infeasible_loss(problem, reduction):
    problem.target_lengths[:] = 8
    problem.input_lengths[2:4] = 7
    expected, _ = torch_loss_and_gradient(problem, reduction=reduction)
    loss = ctc_loss(*problem.arrays(), reduction=reduction, **problem.options)
    assert_loss_close(loss, expected)


@pytest.mark.parametrize("S", [0, 3])
def test_no_frames(S):
    inputs, targets = np.zeros((4, 1, 3)), np.ones((1, 3), int)
    expected = torch.nn.functional.ctc_loss(
        torch.tensor(inputs), torch.tensor(targets), [0], [S], reduction="none"
    )
    loss = ctc_loss(mx.array(inputs), mx.array(targets), [0], [S], reduction="none")
    assert loss.tolist() == expected.tolist()


def test_label_equal_to_the_blank(problem):
    # All but the last label: torch forgets one of the two final states that share a
    # class, and its gradient in the last frame with it.
    problem.targets[:, :-1:2] = problem.blank
    problem.target_lengths[:] = 8
    problem.input_lengths[:] = 30
    compare(problem, reduction="sum")


def test_last_label_equal_to_the_blank_has_torchs_loss(problem):
    problem.targets[:] = problem.blank
    expected, _ = torch_loss_and_gradient(problem, reduction="none")
    loss = ctc_loss(*problem.arrays(), reduction="none", **problem.options)
    assert_loss_close(loss, expected)


@pytest.mark.parametrize("shape", ["1x1x2x1", "200x3x40x90", "50x2x1000x20"])
def test_shapes(rng, shape, with_logits):
    T, N, C, S = map(int, shape.split("x"))
    problem = random_problem(rng, T, N, C, S, ragged=False, with_logits=with_logits)
    compare(as_float32_holds(problem), reduction="sum")


def test_float64(rng, device, with_logits):
    if device == mx.gpu:
        pytest.skip("MLX has float64 on the CPU only")
    problem = random_problem(rng, with_logits=with_logits)
    expected_loss, expected_gradient = torch_loss_and_gradient(
        problem, reduction="none"
    )
    inputs, *rest = problem.arrays(mx.float64)
    loss, gradient = loss_and_gradient(inputs, *rest, **problem.options)
    assert_loss_close(loss, expected_loss, mx.float64)
    assert_gradient_close(gradient, expected_gradient, mx.float64)
