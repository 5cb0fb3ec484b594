# What is refused, when, and in which words.

import re

import mlx.core as mx
import numpy as np
import pytest
from problems import loss_and_gradient

from mlx_ctc import _ext, ctc_loss
from mlx_ctc.functional import REDUCTIONS

pytestmark = pytest.mark.usefixtures("device")

T, N, C, S = 6, 3, 5, 2
SAID = r"^\[ctc_loss\] Expected .* but got .*\.$"


def good():
    """The arguments of a call that is in order; each test spoils one."""
    return {
        "log_probs": mx.zeros((T, N, C)),
        "targets": mx.array([[1] * S] * N),
        "input_lengths": mx.array([T] * N),
        "target_lengths": mx.array([S] * N),
    }


def refused(error, *words, **spoiled):
    """Call and evaluate with an argument spoiled; the message has all the words."""
    with pytest.raises(error, match=SAID) as raised:
        mx.eval(ctc_loss(**{**good(), **spoiled}))
    said = re.findall(r"-?\w+", str(raised.value))
    for word in words:
        assert str(word) in said, raised.value


def test_a_call_in_order_is_accepted():
    mx.eval(ctc_loss(**good()))


@pytest.mark.parametrize("shape", [(), (C,), (1, T, N, C)])
def test_log_probs_have_two_or_three_axes(shape):
    refused(ValueError, "log_probs", log_probs=mx.zeros(shape))


@pytest.mark.parametrize("dtype", [mx.int32, mx.uint8, mx.bool_, mx.complex64])
def test_log_probs_are_floating_point(dtype):
    name = str(dtype).removeprefix("mlx.core.")
    refused(ValueError, name, log_probs=mx.zeros((T, N, C), dtype))


def test_float64_is_for_the_cpu(device):
    log_probs = mx.zeros((T, N, C), mx.float64, stream=mx.cpu)
    if device == mx.gpu:
        refused(ValueError, "float64", log_probs=log_probs)
    else:
        mx.eval(ctc_loss(**{**good(), "log_probs": log_probs}))


def test_gpu_takes_sequences_that_a_launch_can_count():
    # The plan of a GPU's launches, which needs no GPU.
    def launches(N):
        scores = mx.broadcast_to(mx.zeros(()), (1, N, 2))
        integers = mx.broadcast_to(mx.ones((), mx.int32), (N, 1))
        lengths = integers[:, 0]
        options = {"with_logits": True, "zero_infinity": False, "normalized": True}
        return _ext.gpu_launches(scores, integers, lengths, lengths, blank=0, **options)

    for launch in launches(2**21 - 1)["loss"]:
        assert all(0 < size < 2**31 for size in launch["grid"])
    with pytest.raises(ValueError, match=r"at most 2097151 .* got 2097152"):
        launches(2**21)


def test_gpu_takes_frames_that_the_normalisers_can_count():
    # C < 16 has the most frames in a threadgroup, and so the widest steps.
    most = 15 * 2**28
    _ext.cuda_texts((2**12, most // 2**12, 8, 1), mx.float32)
    for T, N in (2**12, most // 2**12 + 1), (2**16, 2**16):
        says = rf"at most {most} frames on a GPU but got T = {T} frames of N = {N}"
        with pytest.raises(ValueError, match=says):
            _ext.cuda_texts((T, N, 8, 1), mx.float32)


def test_gpu_takes_segments_that_a_launch_can_count():
    # Threadgroups of 4 simdgroups; of the gradient one for each frame.
    most = (2**31 - 1) // 128
    shape = (1, 32, 5120)
    _ext.cuda_texts((most, *shape), mx.float32)
    says = f"at most {most} threadgroups .* ctc_gradient but got {most + 1}"
    with pytest.raises(ValueError, match=says):
        _ext.cuda_texts((most + 1, *shape), mx.float32)


@pytest.mark.parametrize("name", ["targets", "input_lengths", "target_lengths"])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bool_, mx.complex64])
def test_targets_and_lengths_are_integers(name, dtype):
    refused(ValueError, name, **{name: good()[name].astype(dtype)})


@pytest.mark.parametrize("name", ["targets", "input_lengths", "target_lengths"])
def test_numpy_targets_and_lengths_are_integers(name):
    refused(ValueError, name, **{name: np.array(good()[name]).astype(np.float32)})


@pytest.mark.parametrize("name", ["input_lengths", "target_lengths"])
def test_listed_lengths_are_integers(name):
    refused(ValueError, name, **{name: [1.0, 2.0, 2.0]})


@pytest.mark.parametrize("shape", [(N, S, 1), (N - 1, S), (N + 1, S), ()])
def test_targets_have_a_row_for_each_item(shape):
    refused(ValueError, "targets", targets=mx.ones(shape, mx.int32))


@pytest.mark.parametrize("name", ["input_lengths", "target_lengths"])
@pytest.mark.parametrize("shape", [(N - 1,), (N + 1,), (N, 1), (0,)])
def test_lengths_have_an_entry_for_each_item(name, shape):
    refused(ValueError, name, **{name: mx.ones(shape, mx.int32)})


@pytest.mark.parametrize("name", ["input_lengths", "target_lengths"])
def test_listed_lengths_have_an_entry_for_each_item(name):
    refused(ValueError, name, **{name: [1] * (N + 1)})


@pytest.mark.parametrize("name", ["input_lengths", "target_lengths"])
def test_unbatched_lengths_are_single(name):
    unbatched = {
        "log_probs": mx.zeros((T, C)),
        "targets": mx.ones((S,), mx.int32),
        "input_lengths": T,
        "target_lengths": S,
    }
    mx.eval(ctc_loss(**unbatched))
    refused(ValueError, name, **{**unbatched, name: mx.array([1, 1, 1])})


@pytest.mark.parametrize("blank", [-C - 1, C, 2**40])
def test_blank_is_a_class(blank):
    refused(ValueError, "blank", blank, C, blank=blank)


@pytest.mark.parametrize("blank", [0.0, None, True, "0"])
def test_blank_is_an_int(blank):
    refused(ValueError, "blank", blank=blank)


@pytest.mark.parametrize("form", [list, np.array, mx.array])
@pytest.mark.parametrize("batch_first", [False, True])
def test_swapped_axes_of_the_scores_are_named(form, batch_first):
    layouts = [r"\(N, T, C\)", r"\(T, N, C\)"]
    actual, other = layouts if batch_first else layouts[::-1]
    hint = f"log_probs are {actual}; for {other} pass batch_first={not batch_first}"
    scores = mx.zeros((40, N, C) if batch_first else (N, 40, C))
    all_labels = [1] * N * S
    for name, *call in (
        ("input_lengths", good()["targets"], form([T] * N), form([S] * N)),
        ("target_lengths", all_labels, None, form([S] * N)),
        ("targets", good()["targets"], None, S),
        ("input_lengths", good()["targets"], form([[1] * 40] * N), S),
    ):
        with pytest.raises(ValueError, match=rf"{name}.*: {hint}\.$"):
            ctc_loss(scores, *call, batch_first=batch_first)


def test_reduction_is_one_of_these():
    refused(ValueError, *REDUCTIONS, "average", reduction="average")


MASKS = [("input_lengths", T), ("target_lengths", S)]
FORMS = [lambda a: a, np.ndarray.tolist, lambda a: mx.array(a) + 0]


@pytest.mark.parametrize(("name", "width"), MASKS)
@pytest.mark.parametrize("form", FORMS, ids=["numpy", "list", "unknown"])
def test_mask_has_a_column_for_each_frame_or_label(name, width, form):
    for shape in (N, width + 1), (N - 1, width), (width, N), (N, 0):
        rows, columns = shape
        mask = form(np.ones(shape, int))
        refused(ValueError, name, N, width, rows, columns, **{name: mask})


def test_concatenated_targets_have_lengths():
    targets = [1] * N * S
    refused(ValueError, "target_lengths", None, targets=targets, target_lengths=None)
    mask = np.ones((N, S), int)
    refused(ValueError, "target_lengths", N, targets=targets, target_lengths=mask)


@pytest.mark.parametrize("name", ["input_lengths", "target_lengths"])
def test_one_boolean_is_no_length(name):
    refused(ValueError, name, **{name: True})
    refused(ValueError, name, **{name: [True] * N})


@pytest.mark.parametrize(("name", "width"), MASKS)
@pytest.mark.parametrize("value", [2, -1, 2**32 + 1])
def test_known_mask_has_zeros_and_ones(name, width, value):
    mask = np.ones((N, width), np.int64)
    mask[2, 1] = value
    refused(ValueError, name, 2, 1, 0, value, **{name: mask})


@pytest.mark.parametrize(("name", "width"), MASKS)
@pytest.mark.parametrize("kind", [bool, int])
def test_known_mask_is_a_prefix(name, width, kind):
    mask = np.ones((N, width), kind)
    mask[1, 0] = 0
    message = rf"{name}\[1, 1\] to be 0, as {name}\[1, 0\] of this mask is"
    with pytest.raises(ValueError, match=message):
        ctc_loss(**{**good(), name: mask})
    refused(ValueError, name, 1, 0, **{name: mask.tolist()})


@pytest.mark.parametrize("padding", [-1, -100, 0])  # the blank is 0
def test_known_labels_are_not_followed_by_others_after_padding(padding):
    targets = np.array([[1] * S, [padding, 4], [1] * S])
    words = ("targets", 1, 0, "padding", 4)
    refused(ValueError, *words, targets=targets, target_lengths=None)


def test_known_label_without_lengths_is_a_class():
    targets = [[1], [1, C], [2]]
    refused(ValueError, 1, C, targets=targets, target_lengths=None)


def test_length_of_a_ragged_target_is_at_most_its_own():
    targets = [[1, 2], [1], [2, 1]]
    said = r"target_lengths\[1\] in \[0, 1\] but got 2\."
    with pytest.raises(ValueError, match=said):
        ctc_loss(**{**good(), "targets": targets, "target_lengths": [2, 2, 2]})


def test_ragged_targets_have_a_row_for_each_item():
    refused(ValueError, "targets", N, targets=[[1], [1, 2]], target_lengths=None)


def test_ragged_masks_are_refused():
    refused(ValueError, "input_lengths", input_lengths=[[1], [1, 1], [1]])


@pytest.mark.parametrize("number", [2**63, 2**70, -(2**63) - 1])
@pytest.mark.parametrize("form", [list, lambda a: np.array(a, object)])
def test_ints_beyond_64_bits_are_named_with_the_range(form, number):
    words = (-(2**63), 2**63, number)
    for name, value in (
        ("targets", [[1, 2], [number, 1], [2, 1]]),
        ("targets", [[1, 2], [number], [2, 1]]),
        ("targets", [number, *[1] * (N * S - 1)]),
        ("input_lengths", [T, number, T]),
        ("input_lengths", number),
        ("target_lengths", [number, 1, 1]),
    ):
        if name == "targets" and len({np.size(row) for row in value}) > 1:
            refused(ValueError, name, *words, **{name: value})  # ragged
        else:
            value = form(value) if isinstance(value, list) else value
            refused(ValueError, name, *words, **{name: value})


@pytest.mark.parametrize("form", [list, np.array])
@pytest.mark.parametrize("length", [-1, T + 1, 2**32 + T, -(2**32) + T])
def test_known_input_length_is_within_the_frames(form, length):
    refused(ValueError, 1, length, T, input_lengths=form([T, length, T]))


@pytest.mark.parametrize("form", [list, np.array])
@pytest.mark.parametrize("length", [-1, S + 1, 2**32 + S, -(2**32) + S])
def test_known_target_length_is_within_the_targets(form, length):
    refused(ValueError, 1, length, S, target_lengths=form([S, length, S]))


@pytest.mark.parametrize("label", [-1, C, 2**32 + 1, -(2**32) + 1])
def test_known_label_is_a_class(label):
    targets = np.ones((N, S), np.int64)
    targets[2, 1] = label
    refused(ValueError, 2, label, C, targets=targets, target_lengths=[S] * N)


@pytest.mark.parametrize("label", [-1, C])
def test_known_concatenated_label_is_a_class(label):
    targets = np.array([1, 1, 2, label])
    refused(ValueError, 2, label, C, targets=targets, target_lengths=[1, 2, 1])


@pytest.mark.parametrize("targets", [np.ones(5, np.int32), mx.ones((5,), mx.int32)])
def test_concatenated_targets_have_as_many_labels_as_the_known_lengths(targets):
    refused(ValueError, 5, 6, targets=targets, target_lengths=[S] * N)


SPOILED = [
    ("input_lengths", 1, -1),
    ("input_lengths", 1, T + 1),
    ("input_lengths", 1, 2**31 - 1),
    ("input_lengths", 1, -(2**31)),
    ("target_lengths", 1, -1),
    ("target_lengths", 1, S + 1),
    ("target_lengths", 1, 2**31 - 1),
    ("target_lengths", 1, -(2**31)),
    ("targets", (2, 1), -1),
    ("targets", (2, 1), C),
    ("targets", (2, 1), 2**31 - 1),
    ("targets", (2, 1), -(2**31)),
]
WIDE = [
    ("input_lengths", 1, 2**32 + T),
    ("target_lengths", 1, 2**32 + S),
    ("targets", (2, 1), 2**32 + 1),
]


def spoiled_values(name, index, value, dtype=np.int64):
    values = np.array(good()[name]).astype(dtype)
    values[index] = value
    return values


class TestEvaluatedArrays:
    """An error of the call, as for lists: the values can be read."""

    @pytest.fixture(autouse=True)
    def _values_are_read(self):
        if not _ext.is_known(mx.array([1])):
            pytest.skip("on CUDA the values of an mx.array are not read at the call")

    @pytest.mark.parametrize(("name", "index", "value"), SPOILED)
    def test_values_out_of_range(self, name, index, value):
        array = mx.array(spoiled_values(name, index, value, np.int32))
        most = {"input_lengths": T, "target_lengths": S, "targets": C}[name]
        refused(ValueError, name, value, most, **{name: array})

    @pytest.mark.parametrize("integer", [mx.int64, mx.uint64])
    @pytest.mark.parametrize(("name", "index", "value"), WIDE)
    def test_wide_integers_do_not_wrap(self, name, index, value, integer):
        array = mx.array(spoiled_values(name, index, value)).astype(integer)
        mx.eval(array)
        refused(ValueError, name, value, **{name: array})

    def test_computed_values(self):
        lengths = mx.full((N,), T, mx.int32) + 1
        mx.eval(lengths)
        refused(ValueError, "input_lengths", 0, T, T + 1, input_lengths=lengths)

    def test_any_strides(self):
        columns = mx.array([[1, 1, 1], [9, 9, 9], [1, 1, C]]).T
        targets = columns[:, ::-2]
        mx.eval(targets)
        refused(ValueError, "targets", 2, 0, C, targets=targets)

    def test_one_length_for_all(self):
        refused(ValueError, "input_lengths", T + 1, input_lengths=mx.array(T + 1))

    def test_one_sequence(self):
        with pytest.raises(ValueError, match=r"targets\[0, 1\] in \[0, 5\) but got 5"):
            ctc_loss(mx.zeros((T, C)), mx.array([1, C]), T, S)

    @pytest.mark.parametrize("lengths", [[2, 2, 2], [1, 1, 1]])
    def test_concatenated_targets_have_as_many_labels_as_the_lengths(self, lengths):
        targets = mx.ones((5,), mx.int32)
        refused(
            ValueError,
            sum(lengths),
            5,
            targets=targets,
            target_lengths=mx.array(lengths),
        )

    def test_what_a_compiled_function_captures(self):
        targets = mx.array(spoiled_values("targets", (2, 1), C))
        lengths = good()["input_lengths"], good()["target_lengths"]
        compiled = mx.compile(lambda x: ctc_loss(x, targets, *lengths))
        with pytest.raises(ValueError, match=r"targets\[2, 1\] in \[0, 5\) but got 5"):
            compiled(mx.zeros((T, N, C)))

    @pytest.mark.parametrize("transform", [mx.grad, mx.value_and_grad])
    def test_in_a_gradient(self, transform):
        _, targets, input_lengths, target_lengths = good().values()
        targets[2, 1] = C
        mx.eval(targets)
        with pytest.raises(ValueError, match=r"targets\[2, 1\]"):
            transform(lambda x: ctc_loss(x, targets, input_lengths, target_lengths))(
                mx.zeros((T, N, C))
            )

    def test_no_evaluation_is_forced(self):
        evaluated = []

        def not_yet(array):
            evaluated.append(array + 0)
            return evaluated[-1]

        arguments = {name: not_yet(array) for name, array in good().items()}
        ctc_loss(**arguments)
        assert not any(map(_ext.is_known, evaluated))


def unknown(argument):
    """An array that has not been evaluated."""
    return None if argument is None else mx.stack([argument])[0]


class TestUnevaluatedArrays:
    """Not read at the call: that sequence is NaN, and no other."""

    @pytest.mark.parametrize(("name", "index", "value"), SPOILED)
    def test_values_out_of_range(self, name, index, value):
        array = mx.array(spoiled_values(name, index, value, np.int32))
        self.is_nan(np.ravel(index)[0], **{name: array})

    @pytest.mark.parametrize("integer", [mx.int64, mx.uint64])
    @pytest.mark.parametrize(("name", "index", "value"), WIDE)
    def test_wide_integers_do_not_wrap(self, name, index, value, integer):
        array = mx.array(spoiled_values(name, index, value)).astype(integer)
        self.is_nan(np.ravel(index)[0], **{name: array})

    @pytest.mark.parametrize("lengths", [[2, 2, 2], [1, 1, 1], [5, 1, -1]])
    def test_concatenated_targets_have_as_many_labels_as_the_lengths(self, lengths):
        targets = mx.ones((5,), mx.int32)
        self.is_nan(slice(None), targets=targets, target_lengths=mx.array(lengths) + 0)

    @pytest.mark.parametrize("lengths", [[8, 2, 2], [2, 2, 8]])
    def test_label_past_the_end_of_what_has_an_alignment(self, lengths):
        # Of a target of 8 labels the op sees T + 1 = 7.
        targets = np.ones(12, np.int64)
        bad = np.argmax(lengths)
        targets[sum(lengths[: bad + 1]) - 1] = C
        losses = ctc_loss(
            mx.zeros((T, N, C)),
            mx.array(targets) + 0,
            [T] * N,
            mx.array(lengths) + 0,
            reduction="none",
        )
        assert np.isnan(losses).tolist() == [n == bad for n in range(N)]

    @pytest.mark.parametrize(("name", "width"), MASKS)
    @pytest.mark.parametrize("row", [[0, 1], [1, 2], [-1, 0]])
    def test_mask_that_is_none(self, name, width, row):
        mask = np.ones((N, width), np.int32)
        mask[1, :2] = row
        self.is_nan(1, **{name: mx.array(mask)})

    def test_boolean_mask_that_is_not_a_prefix(self):
        mask = np.ones((N, T), bool)
        mask[1, 0] = False
        self.is_nan(1, input_lengths=mx.array(mask))

    @pytest.mark.parametrize("padding", [-1, -100, 0])
    def test_labels_after_padding(self, padding):
        targets = mx.array([[1] * S, [padding, 4], [1] * S])
        self.is_nan(1, targets=targets, target_lengths=None)

    def test_arguments_of_a_compiled_function(self):
        compiled = mx.compile(lambda *xs: ctc_loss(*xs, reduction="none"))
        arguments = {**good(), "input_lengths": mx.array([T, T + 1, T])}
        np.testing.assert_array_equal(
            np.isnan(compiled(*arguments.values())), [False, True, False]
        )

    def test_vmap(self):
        arguments = {**good(), "input_lengths": mx.array([T, T + 1, T])}
        losses = mx.vmap(
            lambda *xs: ctc_loss(*xs, reduction="none"), in_axes=(1, 0, 0, 0)
        )(*arguments.values())
        np.testing.assert_array_equal(np.isnan(losses), [False, True, False])

    def is_nan(self, item, **spoiled):
        spoiled_items = np.zeros(N, bool)
        spoiled_items[item] = True
        for zero_infinity in (False, True):
            arguments = {**good(), **{k: unknown(a) for k, a in spoiled.items()}}
            loss, gradient = loss_and_gradient(
                *arguments.values(), zero_infinity=zero_infinity
            )
            nan_frames = np.isnan(gradient).all(axis=2)
            np.testing.assert_array_equal(np.isnan(loss), spoiled_items)
            np.testing.assert_array_equal(nan_frames.all(axis=0), spoiled_items)
            np.testing.assert_array_equal(nan_frames.any(axis=0), spoiled_items)
