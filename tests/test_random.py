# Any problem at all: shapes, lengths, labels, numbers and options drawn by hypothesis.

import mlx.core as mx
import numpy as np
import pytest
import reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import Problem, random_problem

pytestmark = pytest.mark.usefixtures("device")

# The device stays the same from one example to the next, as it should.
any_problem = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def problems(draw):
    T, N = draw(st.integers(0, 24)), draw(st.integers(1, 10))
    # Of many classes the CPU looks at those in the targets alone.
    C = draw(st.one_of(st.integers(1, 12), st.integers(90, 130)))
    S = draw(st.integers(0, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    with_logits = draw(st.booleans())

    inputs = draw(st.sampled_from([0, 1, 10, 100])) * rng.normal(size=(T, N, C))
    if draw(st.booleans()):
        inputs[rng.random(inputs.shape) < 0.2] = -np.inf
        inputs[..., rng.integers(C)] = 0
    if not with_logits:
        inputs = reference.log_softmax(inputs)

    lengths = st.lists(st.integers(0, T), min_size=N, max_size=N)
    labels = st.lists(st.integers(0, S), min_size=N, max_size=N)
    return Problem(
        inputs,
        rng.integers(0, C, size=(N, S)),
        np.array(draw(lengths)),
        np.array(draw(labels)),
        blank=draw(st.integers(0, C - 1)),
        with_logits=with_logits,
    )


@any_problem
@given(problems())
def test_loss_and_gradient_equal_the_reference(problem):
    problem.check()


@any_problem
@given(problems(), st.sampled_from([mx.float16, mx.bfloat16]))
def test_narrow_dtypes_equal_the_reference(problem, dtype):
    problem.check(dtype)


@any_problem
@given(problems())
def test_float64_equals_the_reference(device, problem):
    if device == mx.gpu:
        pytest.skip("MLX has float64 on the CPU only")
    problem.check(mx.float64)


@settings(any_problem, max_examples=settings().max_examples // 6)
@given(st.data())
def test_long_problems_equal_the_reference(data):
    # Long enough for the gradient to be computed in several pieces.
    T, S = data.draw(st.integers(1, 3000)), data.draw(st.integers(0, 200))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    spread = data.draw(st.sampled_from([0, 1, 10]))
    C = data.draw(st.sampled_from([20, 500]))
    random_problem(rng, T, N=2, C=C, S=S, ragged=False, spread=spread).check()
