# Every way to write the same problem gives the same loss and the same gradient.

from functools import partial

import mlx.core as mx
import numpy as np
import ops
import pytest
from ops import OPS
from problems import loss_and_gradient, random_problem

from mlx_ctc import (
    _ext,
    beam_search_decode,
    ctc_loss,
    ctc_posteriors,
    greedy_decode,
    nn,
)
from mlx_ctc.functional import REDUCTIONS

pytestmark = pytest.mark.usefixtures("device")

INTEGERS = [
    mx.int8,
    mx.int16,
    mx.int32,
    mx.int64,
    mx.uint8,
    mx.uint16,
    mx.uint32,
    mx.uint64,
]
LENGTHS = {
    "array": mx.array,
    "unevaluated array": lambda lengths: mx.array(lengths) + 0,
    "list": lambda lengths: lengths.tolist(),
    "tuple": lambda lengths: tuple(lengths.tolist()),
    "numpy": lambda lengths: lengths,
    "tuple of numpy": tuple,
}


def concatenated(problem):
    rows = zip(problem.targets, problem.target_lengths, strict=True)
    return np.concatenate([row[:length] for row, length in rows])


def assert_same_as_padded_arrays(problem, targets, input_lengths, target_lengths):
    expected_loss, expected_gradient = problem.run()
    loss, gradient = loss_and_gradient(
        mx.array(problem.inputs, mx.float32),
        targets,
        input_lengths,
        target_lengths,
        **problem.options,
    )
    assert loss.shape == expected_loss.shape
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


@pytest.mark.parametrize("target_form", LENGTHS)
@pytest.mark.parametrize("input_form", LENGTHS)
def test_lengths_may_have_any_two_forms(rng, input_form, target_form):
    problem = random_problem(rng)
    assert_same_as_padded_arrays(
        problem,
        mx.array(problem.targets),
        LENGTHS[input_form](problem.input_lengths),
        LENGTHS[target_form](problem.target_lengths),
    )


@pytest.mark.parametrize("form", [int, np.int64, mx.array])
def test_one_length_may_stand_for_all(rng, form):
    problem = random_problem(rng)
    problem.input_lengths[:], problem.target_lengths[:] = 25, 6
    targets = mx.array(problem.targets)
    assert_same_as_padded_arrays(problem, targets, form(25), form(6))


@pytest.mark.parametrize("form", LENGTHS)
def test_targets_may_be_concatenated(rng, form):
    problem = random_problem(rng)
    assert_same_as_padded_arrays(
        problem,
        mx.array(concatenated(problem)),
        LENGTHS[form](problem.input_lengths),
        LENGTHS[form](problem.target_lengths),
    )


def test_concatenated_targets_may_all_be_empty(rng):
    problem = random_problem(rng)
    problem.target_lengths[:] = 0
    assert_same_as_padded_arrays(
        problem, mx.array([], mx.int32), problem.input_lengths, [0] * 6
    )


def test_targets_may_be_numpy(rng):
    problem = random_problem(rng)
    lengths = problem.input_lengths, problem.target_lengths
    assert_same_as_padded_arrays(problem, problem.targets, *lengths)
    assert_same_as_padded_arrays(problem, concatenated(problem), *lengths)


def test_targets_may_be_lists(rng):
    problem = random_problem(rng)
    lengths = problem.input_lengths, problem.target_lengths
    assert_same_as_padded_arrays(problem, problem.targets.tolist(), *lengths)
    assert_same_as_padded_arrays(problem, concatenated(problem).tolist(), *lengths)


def test_targets_may_be_wider_than_any_length(rng):
    problem = random_problem(rng)
    wide = np.pad(problem.targets, ((0, 0), (0, 40)), constant_values=-7)
    lengths = problem.input_lengths, problem.target_lengths
    assert_same_as_padded_arrays(problem, wide, *lengths)
    assert_same_as_padded_arrays(problem, mx.array(wide), *map(mx.array, lengths))


@pytest.mark.parametrize("integer", INTEGERS, ids=str)
def test_targets_and_lengths_may_have_any_integer_dtype(rng, integer):
    problem = random_problem(rng)
    assert_same_as_padded_arrays(
        problem,
        mx.array(problem.targets, integer),
        mx.array(problem.input_lengths, integer),
        mx.array(problem.target_lengths, integer),
    )


@pytest.mark.parametrize("integer", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
def test_numpy_targets_and_lengths_may_have_any_integer_dtype(rng, integer):
    problem = random_problem(rng)
    assert_same_as_padded_arrays(
        problem,
        problem.targets.astype(integer),
        problem.input_lengths.astype(integer),
        problem.target_lengths.astype(integer),
    )


NUMPY_INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4", ">u2"]


@pytest.fixture(params=OPS)
def call(request):
    """One of the functions, of logits."""
    return partial(ops.results, request.param, with_logits=True)


def assert_same_results(results, expected):
    for result, wanted in zip(results, expected, strict=True):
        if isinstance(result, list):
            assert result == wanted
        else:
            np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize("integer", NUMPY_INTEGERS)
def test_concatenated_targets_with_lengths_of_any_integer_dtype(rng, call, integer):
    problem = random_problem(rng)
    inputs, *_ = problem.arrays()
    expected = call(inputs, *(a.tolist() for a in problem.arrays()[1:]))
    for targets in (
        concatenated(problem).astype(integer),
        mx.array(concatenated(problem)),
    ):
        result = call(
            inputs,
            targets,
            problem.input_lengths.astype(integer),
            problem.target_lengths.astype(integer),
        )
        assert_same_results(result, expected)


def test_the_example_with_unsigned_lengths():
    lengths = np.array([4, 4]), np.array([1, 1], np.uint8)
    loss = ctc_loss(mx.zeros((4, 2, 3)), np.array([1, 2]), *lengths)
    assert loss.item() == pytest.approx(-np.log(10), rel=1e-6)  # ten paths


@pytest.mark.parametrize("numpy", [np.float32, np.float16, np.float64])
def test_scores_may_be_numpy(rng, call, numpy):
    problem = random_problem(rng)
    rest = problem.arrays()[1:]
    scores = problem.inputs.astype(numpy)
    batch_first = np.ascontiguousarray(scores.swapaxes(0, 1)).swapaxes(0, 1)
    expected = call(mx.array(scores), *rest)
    assert_same_results(call(scores, *rest), expected)
    assert_same_results(call(batch_first, *rest), expected)


def test_scores_of_one_sequence_may_be_numpy(rng):
    scores = rng.normal(size=(5, 3)).astype(np.float32)
    expected = ctc_loss(mx.array(scores), [1, 2], 5, 2)
    assert ctc_loss(scores, [1, 2], 5, 2).item() == expected.item()
    labels, *_ = greedy_decode(scores, 5, with_logits=True)
    assert labels.shape == (5,)
    best = beam_search_decode(scores, 5, with_logits=True)[0].labels
    assert best == beam_search_decode(mx.array(scores), 5, with_logits=True)[0].labels


def test_blank_may_count_from_the_end(rng, call):
    problem = random_problem(rng, blank=8)
    expected = call(*problem.arrays(), 8)
    for blank in -1, np.int64(-1), np.uint8(8):
        assert_same_results(call(*problem.arrays(), blank), expected)


def test_blank_of_decoders_may_count_from_the_end(rng):
    x = mx.array(rng.normal(size=(9, 4)))
    options = {"with_logits": True}
    labels, _, _ = greedy_decode(x, 9, 3, **options)
    np.testing.assert_array_equal(greedy_decode(x, 9, -1, **options)[0], labels)
    by_index = beam_search_decode(x, 9, blank=3, **options)
    assert beam_search_decode(x, 9, blank=-1, **options) == by_index
    layer = nn.CTCLoss(blank=-1, with_logits=True)
    expected = ctc_loss(x, [1], 9, 1, blank=3, with_logits=True)
    assert layer(x, [1], 9, 1).item() == expected.item()


def test_posteriors_are_as_wide_as_can_be_known(rng):
    problem = random_problem(rng, T=20, S=8)
    scores, _, input_lengths, target_lengths = problem.arrays()
    targets = mx.array(concatenated(problem))
    exact = ctc_posteriors(scores, targets, input_lengths, target_lengths)
    if _ext.is_known(target_lengths):
        assert exact.shape == (6, 20, 9)
    bound = ctc_posteriors(scores, targets, input_lengths, target_lengths + 0)
    assert bound.shape == (6, 20, min(targets.size, 21) + 1)
    known = ctc_posteriors(scores, targets, input_lengths, problem.target_lengths)
    assert known.shape == (6, 20, 9)
    np.testing.assert_array_equal(bound[..., :9], known)
    assert not np.array(bound[..., 9:]).any()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    "form",
    [int, mx.array, np.int64, np.array, lambda t: [t], lambda t: mx.array([t])],
    ids=["int", "array", "numpy int", "numpy array", "list", "array of one"],
)
def test_unbatched_loss_is_a_scalar(rng, form, reduction):
    problem = random_problem(rng, N=1, ragged=False)
    inputs, targets, *_ = problem.arrays()
    (expected,), expected_gradient = problem.run()

    def loss(x):
        lengths = form(25), form(6)
        return ctc_loss(x, targets[0], *lengths, reduction=reduction, with_logits=True)

    problem.input_lengths, problem.target_lengths = [25], [6]
    (expected,), expected_gradient = problem.run()
    if reduction in ("mean", "mean_volume"):
        expected, expected_gradient = expected / 6, expected_gradient / 6
    value, gradient = mx.value_and_grad(loss)(inputs[:, 0])
    assert value.shape == ()
    assert gradient.shape == inputs[:, 0].shape
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient[:, 0], atol=1e-6)


LAZY = [False, True]
LAZY_IDS = ["known", "unknown"]


def arrays(values, lazy):
    """As an mx.array that has been evaluated, or has not."""
    array = mx.array(values)
    return mx.stack([array, array])[0] if lazy else array


def rows(problem):
    """The targets as lists of their labels."""
    pairs = zip(problem.targets.tolist(), problem.target_lengths, strict=True)
    return [row[:length] for row, length in pairs]


def padded(problem, padding):
    labels = np.array(problem.targets)
    past = np.arange(labels.shape[1]) >= problem.target_lengths[:, None]
    labels[past] = padding
    return labels


def mask(lengths, width, kind=bool):
    return (np.arange(width) < np.reshape(lengths, (-1, 1))).astype(kind)


@pytest.mark.parametrize("lazy", LAZY, ids=LAZY_IDS)
@pytest.mark.parametrize("kind", [bool, np.int8, np.int32, np.uint64])
def test_lengths_may_be_masks(rng, kind, lazy):
    problem = random_problem(rng)
    assert_same_as_padded_arrays(
        problem,
        arrays(problem.targets, lazy),
        arrays(mask(problem.input_lengths, 30, kind), lazy),
        arrays(mask(problem.target_lengths, 8, kind), lazy),
    )


@pytest.mark.parametrize("form", [np.array, np.asfortranarray, np.ndarray.tolist])
def test_masks_may_be_numpy_and_lists(rng, form):
    problem = random_problem(rng)
    masks = mask(problem.input_lengths, 30), mask(problem.target_lengths, 8, int)
    assert_same_as_padded_arrays(problem, problem.targets, *map(form, masks))


@pytest.mark.parametrize("lazy", LAZY, ids=LAZY_IDS)
@pytest.mark.parametrize("padding", [-1, -100, 0])
def test_targets_may_be_padded_in_place_of_lengths(rng, padding, lazy):
    problem = random_problem(rng)  # whose blank is 0
    targets = arrays(padded(problem, padding), lazy)
    assert_same_as_padded_arrays(problem, targets, problem.input_lengths, None)


@pytest.mark.parametrize("form", [list, tuple, np.array, mx.array])
def test_targets_may_be_ragged(rng, form):
    problem = random_problem(rng)
    targets = [form(row) if row else row for row in rows(problem)]
    lengths = problem.input_lengths
    assert_same_as_padded_arrays(problem, targets, lengths, None)
    assert_same_as_padded_arrays(problem, targets, lengths, problem.target_lengths)
    assert_same_as_padded_arrays(
        problem, tuple(targets), lengths, mx.array(problem.target_lengths) + 0
    )


def test_ragged_targets_may_be_longer_than_their_lengths(rng):
    problem = random_problem(rng)
    targets = [[*row, 1] if n % 2 else row for n, row in enumerate(rows(problem))]
    lengths = problem.input_lengths, problem.target_lengths
    assert_same_as_padded_arrays(problem, targets, *lengths)


def test_without_lengths_every_frame_and_every_label_counts(rng):
    problem = random_problem(rng, ragged=False)
    assert_same_as_padded_arrays(problem, problem.targets, None, None)
    expected = ctc_loss(*problem.arrays(), with_logits=True)
    loss = ctc_loss(*problem.arrays()[:2], with_logits=True)
    assert loss.item() == expected.item()


@pytest.mark.parametrize("lazy", LAZY, ids=LAZY_IDS)
def test_one_sequence_may_have_masks_or_no_lengths(rng, lazy):
    problem = random_problem(rng, N=1)
    problem.input_lengths[:], problem.target_lengths[:] = 25, 6
    inputs, targets, *lengths = problem.arrays()
    expected = ctc_loss(inputs, targets, *lengths, with_logits=True).item()
    masks = arrays(mask(25, 30)[0], lazy), arrays(mask(6, 8, int)[0], lazy)
    for labels, *lengths in (
        (problem.targets[0], *masks),
        (arrays(padded(problem, -100)[0], lazy), 25, None),
        (problem.targets[0, :6].tolist(), [25], None),
    ):
        loss = ctc_loss(inputs[:, 0], labels, *lengths, with_logits=True)
        assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("length", [0, 1])
@pytest.mark.parametrize("kind", [bool, int])
def test_one_frame_may_have_a_mask(length, kind):
    expected = ctc_loss(mx.zeros((1, 3)), [1], length, 1).item()
    assert ctc_loss(mx.zeros((1, 3)), [1], [kind(length)], 1).item() == expected


def all_results(scores, targets, input_lengths, target_lengths, **options):
    """Of every function, as NumPy arrays and lists."""
    batch = scores, targets, input_lengths, target_lengths
    return [
        *map(np.array, ops.all_results(*batch, **options)),
        *map(np.array, greedy_decode(scores, input_lengths, **options)),
        beam_search_decode(scores, input_lengths, 4, **options),
    ]


@pytest.mark.parametrize("lazy", LAZY, ids=LAZY_IDS)
def test_every_function_takes_every_form(rng, lazy):
    problem = random_problem(rng)
    problem.input_lengths[:] = np.maximum(problem.input_lengths, 20)
    expected = all_results(*problem.arrays(), with_logits=True)
    scores = mx.array(problem.inputs.swapaxes(0, 1), mx.float32)
    masks = mask(problem.input_lengths, 30), mask(problem.target_lengths, 8)
    for targets, *lengths in (
        (arrays(problem.targets, lazy), *(arrays(a, lazy) for a in masks)),
        (arrays(padded(problem, -100), lazy), arrays(masks[0], lazy), None),
        (rows(problem), masks[0], None),
    ):
        results = all_results(
            scores, targets, *lengths, with_logits=True, batch_first=True
        )
        assert_same_results(results, expected)


def test_every_function_takes_all_frames(rng):
    problem = random_problem(rng)
    problem.input_lengths[:] = 30
    expected = all_results(*problem.arrays(), with_logits=True)
    scores, targets, _, lengths = problem.arrays()
    results = all_results(scores, targets, None, lengths, with_logits=True)
    assert_same_results(results, expected)


def test_gradient_of_batch_first_scores_has_the_batch_first(rng):
    problem = random_problem(rng)
    scores, *rest = problem.arrays()
    expected_loss, expected = problem.run()
    loss, gradient = loss_and_gradient(
        scores.swapaxes(0, 1),
        *rest,
        batch_first=True,
        with_logits=True,
        cotangent=mx.ones(6),
    )
    np.testing.assert_array_equal(loss, expected_loss)
    np.testing.assert_array_equal(gradient, expected.swapaxes(0, 1))


def test_batch_first_changes_nothing_for_one_sequence(rng):
    scores = mx.array(rng.normal(size=(9, 4)))
    expected = ctc_loss(scores, [1, 2], with_logits=True)
    loss = ctc_loss(scores, [1, 2], with_logits=True, batch_first=True)
    assert loss.item() == expected.item()


def test_masks_and_padding_in_a_compiled_and_in_a_vmapped_function(rng):
    problem = random_problem(rng)
    expected = problem.run()[0]
    scores = mx.array(problem.inputs, mx.float32)
    masks = mask(problem.input_lengths, 30), mask(problem.target_lengths, 8)
    options = {"reduction": "none", "with_logits": True}

    def loss(scores, targets, frames, labels):
        return ctc_loss(scores, targets, frames, labels, **options)

    def loss_of_padded(scores, targets, frames):
        return ctc_loss(scores, targets, frames, **options)

    calls = [
        (loss, (problem.targets, *masks)),
        (loss_of_padded, (padded(problem, -100), masks[0])),
    ]
    for function, rest in calls:
        rest = [mx.array(a) for a in rest]
        axes = (1, *[0] * len(rest))
        for wrapped in mx.compile(function), mx.vmap(function, in_axes=axes):
            result = wrapped(scores, *rest)
            np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_mean_volume_counts_the_labels_of_a_target_that_is_cut_off():
    # Of a target of 12 labels the op sees T + 1 = 5, if its length is not known.
    call = mx.zeros((4, 2, 3)), [1] * 14
    options = {"reduction": "mean_volume", "zero_infinity": True}
    known = ctc_loss(*call, 4, [12, 2], **options)
    assert known.item() == pytest.approx(-np.log(5) / 14, rel=1e-6)  # five paths
    unknown = ctc_loss(*call, 4, mx.array([12, 2]) + 0, **options)
    assert unknown.item() == pytest.approx(known.item(), rel=1e-6)


def test_mean_volume_divides_empty_targets_by_one():
    loss = ctc_loss(mx.zeros((4, 2, 3)), [[], []], reduction="mean_volume")
    assert loss.item() == 0


def test_positional_order_is_torchs(rng):
    problem = random_problem(rng, with_logits=False, blank=8)
    problem.input_lengths[problem.target_lengths.argmax()] = 3
    by_position = ctc_loss(*problem.arrays(), 8, "sum", True)
    by_name = ctc_loss(*problem.arrays(), blank=8, reduction="sum", zero_infinity=True)
    assert by_position.item() == by_name.item()


def test_default_reduction_is_the_mean(rng):
    problem = random_problem(rng, with_logits=False)
    loss = ctc_loss(*problem.arrays())
    assert loss.item() == ctc_loss(*problem.arrays(), reduction="mean").item()


def test_batch_of_none_has_no_losses():
    inputs, targets = mx.zeros((5, 0, 3)), mx.zeros((0, 2), mx.int32)
    loss, gradient = loss_and_gradient(inputs, targets, [], [])
    assert loss.shape == (0,)
    assert gradient.shape == (5, 0, 3)


@pytest.mark.parametrize("N", [1, 7, 8, 9, 100])
def test_each_item_is_as_if_alone(rng, N):
    problem = random_problem(rng, N=N)
    inputs, targets, input_lengths, target_lengths = problem.arrays()
    loss, gradient = problem.run()
    for n in (0, N // 2, N - 1):
        item = slice(n, n + 1)
        alone_loss, alone_gradient = loss_and_gradient(
            inputs[:, item],
            targets[item],
            input_lengths[item],
            target_lengths[item],
            with_logits=True,
        )
        np.testing.assert_allclose(loss[item], alone_loss, rtol=1e-6)
        np.testing.assert_allclose(gradient[:, item], alone_gradient, atol=1e-6)
