# The posteriors of a target's labels, frame by frame.

import mlx.core as mx
import numpy as np
import pytest
import reference
from problems import random_problem, to_numpy

from mlx_ctc import ctc_loss, ctc_posteriors

pytestmark = pytest.mark.usefixtures("device")


@pytest.fixture(params=[False, True], ids=["by_label", "by_class"])
def by_class(request):
    return request.param


def expected_posteriors(problem, by_class, dtype=mx.float32):
    """The float64 answer for the inputs as the dtype holds them."""
    inputs = to_numpy(mx.array(problem.inputs, dtype))
    if problem.with_logits:
        inputs = reference.log_softmax(inputs)
    T, N, C = inputs.shape
    result = np.zeros((N, T, C if by_class else problem.targets.shape[1] + 1))
    lengths = zip(problem.input_lengths, problem.target_lengths, strict=True)
    for n, (frames, S) in enumerate(lengths):
        x, labels = inputs[:frames, n], problem.targets[n][:S]
        if by_class:
            result[n, :frames] = reference.ctc(x, labels, problem.blank)[1]
        elif frames > 0:
            _, gamma = reference.occupation(x, labels, problem.blank)
            result[n, :frames, 0] = gamma[:, ::2].sum(axis=1)
            result[n, :frames, 1 : S + 1] = gamma[:, 1::2]
    return result


def posteriors(problem, dtype=mx.float32, **options):
    return to_numpy(
        ctc_posteriors(*problem.arrays(dtype), **problem.options, **options)
    )


@pytest.mark.parametrize("blank", [0, 5])
def test_equal_the_reference(rng, dtype, with_logits, by_class, blank):
    problem = random_problem(rng, blank=blank, with_logits=with_logits)
    result = ctc_posteriors(
        *problem.arrays(dtype), **problem.options, by_class=by_class
    )
    assert result.dtype == (mx.float64 if dtype == mx.float64 else mx.float32)
    tolerance = 1e-12 if dtype == mx.float64 else 2e-6
    expected = expected_posteriors(problem, by_class, dtype)
    np.testing.assert_allclose(result, expected, 0, tolerance)


@pytest.mark.parametrize("labels", [[], [1], [2, 1], [1, 1]])
def test_equal_the_definition(rng, labels):
    log_probs = reference.log_softmax(rng.normal(size=(5, 3)))
    _, gamma = reference.ctc_by_enumeration(log_probs, labels)
    result = ctc_posteriors(
        mx.array(log_probs, mx.float32), labels, 5, len(labels), by_class=True
    )
    np.testing.assert_allclose(result, gamma, 0, 1e-6)


@pytest.mark.parametrize("S", [1, 15, 16, 17, 33, 300])
def test_targets_of_any_length(rng, by_class, S):
    problem = random_problem(rng, T=2 * S + 20, N=3, C=20, S=S)
    result = posteriors(problem, by_class=by_class)
    np.testing.assert_allclose(result, expected_posteriors(problem, by_class), 0, 4e-6)


def test_frames_sum_to_one(rng, with_logits, by_class):
    problem = random_problem(rng, T=80, with_logits=with_logits)
    sums = posteriors(problem, by_class=by_class).sum(axis=2)
    used = np.arange(80) < problem.input_lengths[:, None]
    np.testing.assert_allclose(sums, used, 0, 1e-6)


def test_ten_thousand_frames(rng, by_class):
    problem = random_problem(rng, T=10_000, N=2, C=20, S=900, ragged=False)
    result = posteriors(problem, by_class=by_class)
    np.testing.assert_allclose(result, expected_posteriors(problem, by_class), 0, 2e-6)


def test_are_what_the_losss_gradient_lacks_of_the_softmax(rng):
    problem = random_problem(rng)
    x, *rest = problem.arrays()

    def loss(x):
        return ctc_loss(x, *rest, reduction="sum", with_logits=True)

    gamma = posteriors(problem, by_class=True).swapaxes(0, 1)
    used = (np.arange(30)[:, None] < problem.input_lengths)[..., None]
    softmax = used * to_numpy(mx.softmax(x, axis=-1))
    np.testing.assert_allclose(softmax - gamma, mx.grad(loss)(x), 0, 2e-6)


def test_certain_alignment_is_certain():
    # As many frames as labels.
    result = ctc_posteriors(mx.zeros((3, 4)), [1, 3, 2], 3, 3, with_logits=True)
    np.testing.assert_array_equal(result, np.eye(4)[1:])


def test_empty_target_is_all_blank():
    result = ctc_posteriors(mx.zeros((3, 4)), mx.zeros((0,), mx.int32), 3, 0)
    np.testing.assert_array_equal(result, [[1]] * 3)


def test_a_label_that_is_the_blank_counts_for_both(rng):
    problem = random_problem(rng)
    problem.targets[:, 2] = problem.blank
    sums = posteriors(problem, by_class=True).sum(axis=2)
    used = np.arange(30) < problem.input_lengths[:, None]
    np.testing.assert_allclose(sums, used, 0, 1e-6)


def test_without_an_alignment_are_zero(by_class):
    result = ctc_posteriors(
        mx.zeros((5, 2, 3)), [[1, 1, 2]] * 2, [3, 4], [3, 3], by_class=by_class
    )
    np.testing.assert_array_equal(result.sum(axis=2), [[0] * 5, [1, 1, 1, 1, 0]])
    masked = mx.array([[0, 0, -np.inf]] * 5)
    result = ctc_posteriors(masked, [1, 2], 5, 2, by_class=by_class)
    np.testing.assert_array_equal(result, np.zeros(result.shape))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_number_makes_its_item_nan(rng, value, with_logits, by_class):
    problem = random_problem(rng, with_logits=with_logits)
    n = problem.target_lengths.argmax()
    problem.input_lengths[n] = 20
    expected = posteriors(problem, by_class=by_class)
    problem.inputs[4, n, problem.targets[n, 3]] = value
    problem.inputs[25, n] = value
    result = posteriors(problem, by_class=by_class)
    assert np.isnan(result[n, :20]).all()
    expected[n, :20] = np.nan
    np.testing.assert_array_equal(result, expected)


def test_forms_are_those_of_the_loss(rng, by_class):
    problem = random_problem(rng)
    x, *_ = problem.arrays()
    expected = posteriors(problem, by_class=by_class)
    lists = problem.input_lengths.tolist(), problem.target_lengths.tolist()
    rows = zip(problem.targets, problem.target_lengths, strict=True)
    concatenated = np.concatenate([row[:length] for row, length in rows])
    for targets in (problem.targets, concatenated, mx.array(concatenated)):
        result = ctc_posteriors(x, targets, *lists, with_logits=True, by_class=by_class)
        np.testing.assert_array_equal(result, expected)


def test_one_sequence_has_no_batch_axis(rng):
    problem = random_problem(rng, N=1, ragged=False)
    x, targets, *_ = problem.arrays()
    result = ctc_posteriors(x[:, 0], targets[0], 30, 8, with_logits=True)
    np.testing.assert_array_equal(result, posteriors(problem)[0])


@pytest.mark.parametrize(("T", "N"), [(0, 3), (5, 0)])
def test_nothing_to_compute(T, N, by_class):
    result = ctc_posteriors(
        mx.zeros((T, N, 3)), mx.zeros((N, 0), mx.int32), [T] * N, 0, by_class=by_class
    )
    assert result.shape == (N, T, 3 if by_class else 1)


def test_refusals_are_those_of_the_loss():
    x, targets = mx.zeros((6, 2, 5)), mx.ones((2, 3), mx.int32)
    with pytest.raises(ValueError, match=r"^\[ctc_posteriors\] .*targets of shape"):
        ctc_posteriors(x, mx.ones((1, 3), mx.int32), 6, 3)
    with pytest.raises(ValueError, match=r"^\[ctc_posteriors\] .*lengths\[1\]"):
        ctc_posteriors(x, targets, [6, 7], 3)
    result = ctc_posteriors(x, targets, mx.array([6, 7]) + 0, 3)
    np.testing.assert_array_equal(np.isnan(result).all(axis=(1, 2)), [False, True])


def test_same_bits_every_run(rng, with_logits, by_class):
    problem = random_problem(rng, T=300, N=16, S=60, with_logits=with_logits)
    expected = posteriors(problem, by_class=by_class)
    for _ in range(5):
        np.testing.assert_array_equal(posteriors(problem, by_class=by_class), expected)


class TestTransforms:
    def test_compile(self, rng):
        problem = random_problem(rng)
        compiled = mx.compile(lambda *arrays: ctc_posteriors(*arrays, with_logits=True))
        for _ in range(2):
            result = compiled(*problem.arrays())
            np.testing.assert_array_equal(result, posteriors(problem))

    def test_vmap(self, rng):
        problems = [random_problem(rng) for _ in range(3)]
        arrays = zip(*(p.arrays() for p in problems), strict=True)
        results = mx.vmap(lambda *arrays: ctc_posteriors(*arrays, with_logits=True))(
            *(mx.stack(a) for a in arrays)
        )
        for problem, result in zip(problems, results, strict=True):
            np.testing.assert_array_equal(result, posteriors(problem))

    def test_gradient_is_refused(self, rng):
        x, *rest = random_problem(rng).arrays()
        with pytest.raises(ValueError, match=r"\[ctc_posteriors\].*differentiated"):
            mx.grad(lambda x: ctc_posteriors(x, *rest).sum())(x)
