# docs/from-pytorch.md is right: its code is executed beside torch, its claims are
# tested. test_documentation.py executes the half of MLX where torch is not installed.

import inspect
import re
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_ctc import ctc_loss
from mlx_ctc.nn import CTCLoss

torch = pytest.importorskip("torch", reason="compares with PyTorch")

PAGE = Path(__file__).parent.parent / "docs" / "from-pytorch.md"

pytestmark = pytest.mark.usefixtures("device")


def execute(library):
    """Execute the page's blocks for a library, and those for both, in one
    namespace."""
    namespace = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        mark = re.match(r"# (torch|MLX)\n", block)
        if mark is None or mark[1] == library:
            exec(compile(block, PAGE.name, "exec"), namespace)
    return namespace


def torch_gradient(inputs, targets, input_length, target_length, **options):
    """The gradient with respect to the logits ``(T, 1, C)``."""
    inputs = torch.tensor(inputs, requires_grad=True)
    lengths = torch.tensor([input_length]), torch.tensor([target_length])
    log_probs = inputs.log_softmax(-1)
    loss = torch.nn.functional.ctc_loss(
        log_probs, torch.tensor([targets]), *lengths, **options
    )
    loss.backward()
    return inputs.grad.numpy()


def our_gradient(inputs, targets, input_length, target_length, **options):
    def loss(x):
        lengths = [input_length], [target_length]
        return ctc_loss(x, [targets], *lengths, with_logits=True, **options)

    return np.array(mx.grad(loss)(mx.array(inputs)))


def test_curves_of_both_loops_agree(device, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    theirs = execute("torch")["losses"]
    ours = execute("MLX")["losses"]
    assert len(theirs) == 50
    assert theirs[-1] < 0.25 * theirs[0]
    tolerance = 1e-4 if device == mx.cpu else 1e-2  # a GPU's products may be TF32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (torch.nn.functional.ctc_loss, ctc_loss),
        (torch.nn.CTCLoss.__init__, CTCLoss.__init__),
        (torch.nn.CTCLoss.forward, CTCLoss.__call__),
    ],
)
def test_calls_of_torch_are_valid_and_mean_the_same(theirs, ours):
    """Torch's arguments are our first ones; where it has a default, ours is the same.

    Where it has none, there may be one here.
    """
    theirs = inspect.signature(theirs).parameters.values()
    ours = list(inspect.signature(ours).parameters.values())
    for their, our in zip(theirs, ours, strict=False):
        assert (our.name, our.kind) == (their.name, their.kind)
        assert our.default == their.default or their.default is their.empty
    added = ours[len(theirs) :]
    assert all(our.kind is our.KEYWORD_ONLY for our in added)


def test_target_that_does_not_fit_has_no_gradient(rng):
    inputs = rng.normal(size=(2, 1, 3)).astype(np.float32)
    case = inputs, [1, 1], 2, 2
    assert np.isnan(torch_gradient(*case)).any()
    for options in ({}, {"zero_infinity": True}):
        assert (our_gradient(*case, **options) == 0).all()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients_of_logits_agree(rng, reduction):
    case = rng.normal(size=(6, 1, 4)).astype(np.float32), [1, 3, 3], 5, 3
    theirs = torch_gradient(*case, reduction=reduction)
    ours = our_gradient(*case, reduction=reduction)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_nan_past_the_length_harms_torch_alone(rng):
    inputs = rng.normal(size=(4, 1, 3)).astype(np.float32)
    inputs[3] = np.nan
    case = inputs, [1, 2], 3, 2
    assert np.isnan(torch_gradient(*case)).any()
    gradient = our_gradient(*case)
    assert np.isfinite(gradient).all()
    assert (gradient[3] == 0).all()


def test_masked_class_harms_torch_alone(rng):
    inputs = rng.normal(size=(4, 1, 3)).astype(np.float32)
    inputs[..., 2] = -np.inf
    case = inputs, [1, 1], 4, 2
    assert np.isnan(torch_gradient(*case)).all()
    gradient = our_gradient(*case)
    assert np.isfinite(gradient).all()
    assert (gradient[..., 2] == 0).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_refused_by_torch_on_the_cpu(dtype):
    log_probs = torch.zeros(4, 1, 3, dtype=getattr(torch, dtype))
    with pytest.raises(NotImplementedError, match="ctc_loss_cpu"):
        torch.nn.functional.ctc_loss(log_probs, torch.tensor([[1]]), [4], [1])
    loss = ctc_loss(mx.zeros((4, 1, 3), getattr(mx, dtype)), [[1]], [4], [1])
    assert loss.dtype == mx.float32


def test_neither_looks_whether_log_probabilities_are_normalised():
    theirs = torch.nn.functional.ctc_loss(
        torch.ones(4, 1, 3), torch.tensor([[1]]), [4], [1]
    )
    ours = ctc_loss(mx.ones((4, 1, 3)), [[1]], [4], [1])
    assert ours.item() < 0
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


def test_neither_has_second_derivatives():
    log_probs = torch.zeros(4, 1, 3, requires_grad=True)
    loss = torch.nn.functional.ctc_loss(log_probs, torch.tensor([[1]]), [4], [1])
    [gradient] = torch.autograd.grad(loss, log_probs, create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        gradient.sum().backward()

    def gradient_sum(x):
        return mx.grad(lambda x: ctc_loss(x, [[1]], [4], [1]))(x).sum()

    with pytest.raises(ValueError, match="not implemented"):
        mx.grad(gradient_sum)(mx.zeros((4, 1, 3)))


def test_label_out_of_range_is_a_number_to_torch_and_an_error_here():
    # One past the last class of the first frame: the second frame's first class.
    theirs = torch.nn.functional.ctc_loss(
        torch.zeros(4, 1, 3).log_softmax(-1), torch.tensor([[3]]), [2], [1]
    )
    assert theirs.isfinite()
    with pytest.raises(ValueError, match=r"targets\[0, 0\] in \[0, 3\) but got 3"):
        ctc_loss(mx.zeros((4, 1, 3)), [[3]], [2], [1])
