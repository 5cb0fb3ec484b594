# A CTC problem, how to run it, and how near the reference its answer has to be.

from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import reference

from mlx_ctc import ctc_loss


class Tolerance(NamedTuple):
    loss: float  # relative, and absolute where the loss is below 1
    gradient: float  # absolute
    rounding: float  # of the gradient to the input's dtype, relative


# The reference itself is in log-probabilities, and float64 is no better than that.
# Every dtype but float64 is computed in float32, so what is left of the narrow ones
# is the one rounding of their gradient.
TOLERANCE = {
    mx.float64: Tolerance(1e-12, 2e-11, 2**-53),
    mx.float32: Tolerance(1e-6, 1e-6, 2**-24),
    mx.float16: Tolerance(1e-6, 1e-6, 2**-11),
    mx.bfloat16: Tolerance(1e-6, 1e-6, 2**-8),
}

# Probabilities (T, C) from the tests of Graves' own implementation, which TensorFlow's
# and torchaudio's took over. The blank is 5.
LONG = [
    [0.633766, 0.221185, 0.0917319, 0.0129757, 0.0142857, 0.0260553],
    [0.111121, 0.588392, 0.278779, 0.0055756, 0.00569609, 0.010436],
    [0.0357786, 0.633813, 0.321418, 0.00249248, 0.00272882, 0.0037688],
    [0.0663296, 0.643849, 0.280111, 0.00283995, 0.0035545, 0.00331533],
    [0.458235, 0.396634, 0.123377, 0.00648837, 0.00903441, 0.00623107],
]
REPEATING = [
    [0.30176, 0.28562, 0.0831517, 0.0862751, 0.0816851, 0.161508],
    [0.24082, 0.397533, 0.0557226, 0.0546814, 0.0557528, 0.19549],
    [0.230246, 0.450868, 0.0389607, 0.038309, 0.0391602, 0.202456],
    [0.280884, 0.429522, 0.0326593, 0.0339046, 0.0326856, 0.190345],
    [0.423286, 0.315517, 0.0338439, 0.0393744, 0.0339315, 0.154046],
]


def to_numpy(array):
    """The array in float64, exactly."""
    if array.dtype == mx.bfloat16:
        array = array.astype(mx.float32)
    return np.array(array).astype(np.float64)


def assert_loss_close(loss, expected, dtype=mx.float32):
    tolerance = TOLERANCE[dtype].loss
    np.testing.assert_allclose(to_numpy(loss), expected, tolerance, tolerance)


def assert_gradient_close(gradient, expected, dtype=mx.float32):
    _, absolute, rounding = TOLERANCE[dtype]
    np.testing.assert_allclose(to_numpy(gradient), expected, rounding, absolute)


def assert_alignment_is_best(problem, path, scores, dtype=mx.float32, rtol=1e-6):
    """Against the float64 reference, for the inputs as the dtype holds them."""
    inputs = to_numpy(mx.array(problem.inputs, dtype))
    if problem.with_logits:
        inputs = reference.log_softmax(inputs)
    lengths = zip(problem.input_lengths, problem.target_lengths, strict=True)
    for n, (T, S) in enumerate(lengths):
        x, labels = inputs[:T, n], problem.targets[n][:S]
        expected, _ = reference.best_alignment(x, labels, problem.blank)
        np.testing.assert_array_equal(path[n][:T], expected)
        np.testing.assert_array_equal(path[n][T:], problem.blank)
        np.testing.assert_allclose(scores[n][:T], x[np.arange(T), expected], rtol, 1e-6)
        np.testing.assert_array_equal(scores[n][T:], 0)


def loss_and_gradient(inputs, *target_and_lengths, cotangent=None, **options):
    """Losses (N,), and the gradient of their sum weighted by the cotangent (N,)."""

    def losses(x):
        return ctc_loss(x, *target_and_lengths, reduction="none", **options)

    if cotangent is None:
        dtype = mx.float64 if inputs.dtype == mx.float64 else mx.float32
        cotangent = mx.ones(inputs.shape[1:-1], dtype)
    (loss,), (gradient,) = mx.vjp(losses, [inputs], [cotangent])
    mx.eval(loss, gradient)
    return loss, gradient


@dataclass
class Problem:
    inputs: np.ndarray  # (T, N, C)
    targets: np.ndarray  # (N, S)
    input_lengths: np.ndarray  # (N,)
    target_lengths: np.ndarray  # (N,)
    blank: int = 0
    with_logits: bool = True
    normalized: bool = True

    def arrays(self, dtype=mx.float32):
        """What ctc_loss takes, in its order."""
        return (
            mx.array(self.inputs, dtype),
            mx.array(self.targets),
            mx.array(self.input_lengths),
            mx.array(self.target_lengths),
        )

    @property
    def options(self):
        """Those of every op. ctc_loss has `normalized` as well."""
        return {"blank": self.blank, "with_logits": self.with_logits}

    def run(self, dtype=mx.float32, **options):
        options = {**self.options, "normalized": self.normalized, **options}
        return loss_and_gradient(*self.arrays(dtype), **options)

    def expected(self, dtype=mx.float32):
        """The float64 answer for the inputs as the dtype holds them."""
        return reference.ctc_loss(
            to_numpy(mx.array(self.inputs, dtype)),
            self.targets,
            self.input_lengths,
            self.target_lengths,
            **self.options,
            normalized=self.normalized,
        )

    def check(self, dtype=mx.float32):
        loss, gradient = self.run(dtype)
        expected_loss, expected_gradient = self.expected(dtype)
        assert_loss_close(loss, expected_loss, dtype)
        assert_gradient_close(gradient, expected_gradient, dtype)


def random_problem(
    rng, T=30, N=6, C=9, S=8, blank=0, with_logits=True, ragged=True, spread=2.0
):
    """Random inputs; if ragged, with lengths from the shortest to T and from 0 to S."""
    inputs = spread * rng.normal(size=(T, N, C))
    if not with_logits:
        inputs = reference.log_softmax(inputs)
    targets = rng.integers(0, C - 1, size=(N, S))
    targets += targets >= blank
    input_lengths, target_lengths = np.full(N, T), np.full(N, S)
    if ragged:
        input_lengths = np.linspace(T, min(T, 2 * S), N).astype(np.int32)
        target_lengths = rng.permutation(np.linspace(0, S, N).astype(np.int32))
    return Problem(inputs, targets, input_lengths, target_lengths, blank, with_logits)
