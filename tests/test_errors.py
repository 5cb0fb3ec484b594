# What is refused, when, and in which words.

import re

import mlx.core as mx
import numpy as np
import pytest
from problems import loss_and_gradient

from mlx_ctc import ctc_loss

pytestmark = pytest.mark.usefixtures("device")

T, N, C, S = 6, 3, 5, 2
SAID = r"^\[ctc_loss\] Expected .* but got .*\.$"


def good():
    """The arguments of a call that is in order; each test spoils one."""
    return {
        "log_probs": mx.zeros((T, N, C)),
        "targets": mx.ones((N, S), mx.int32),
        "input_lengths": mx.full((N,), T, mx.int32),
        "target_lengths": mx.full((N,), S, mx.int32),
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
    refused(ValueError, name, **{**unbatched, name: mx.array([1, 1])})


@pytest.mark.parametrize("blank", [-1, C, 2**40])
def test_blank_is_a_class(blank):
    refused(ValueError, "blank", blank, C, blank=blank)


def test_reduction_is_one_of_three():
    refused(ValueError, "none", "mean", "sum", "average", reduction="average")


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


class TestValuesInsideArrays:
    """On the CPU an error at evaluation; on a GPU that item alone is NaN."""

    @pytest.mark.parametrize("length", [-1, T + 1, 2**31 - 1, -(2**31)])
    def test_input_length_is_within_the_frames(self, device, length):
        lengths = mx.array([T, length, T])
        self.refused(device, 1, 1, length, T, input_lengths=lengths)

    @pytest.mark.parametrize("length", [-1, S + 1, 2**31 - 1, -(2**31)])
    def test_target_length_is_within_the_targets(self, device, length):
        lengths = mx.array([S, length, S])
        self.refused(device, 1, 1, length, S, target_lengths=lengths)

    @pytest.mark.parametrize("label", [-1, C, 2**31 - 1, -(2**31)])
    def test_label_is_a_class(self, device, label):
        targets = mx.array([[1, 1], [1, 1], [1, label]])
        self.refused(device, 2, 2, label, C, targets=targets)

    @pytest.mark.parametrize("name", ["targets", "input_lengths", "target_lengths"])
    @pytest.mark.parametrize("integer", [mx.int64, mx.uint64, mx.uint32])
    def test_wide_integers_do_not_wrap(self, device, name, integer):
        values = np.array(good()[name]).astype(np.uint64)
        values[1] = 2**32 - 1 if integer == mx.uint32 else 2**32 + 1
        self.refused(device, 1, 1, **{name: mx.array(values).astype(integer)})

    @pytest.mark.parametrize("lengths", [[2, 2, 2], [1, 1, 1], [5, 1, -1]])
    def test_concatenated_targets_have_as_many_labels_as_the_lengths(
        self, device, lengths
    ):
        targets = mx.ones((5,), mx.int32)
        self.refused(
            device, slice(None), targets=targets, target_lengths=mx.array(lengths)
        )

    def refused(self, device, item, *words, **spoiled):
        if device == mx.cpu:
            refused(RuntimeError, *words, **spoiled)
            mx.eval(ctc_loss(**good()))  # the stream goes on working
            return
        arguments = {**good(), **spoiled}
        spoiled_items = np.zeros(N, bool)
        spoiled_items[item] = True
        for zero_infinity in (False, True):
            loss, gradient = loss_and_gradient(
                *arguments.values(), zero_infinity=zero_infinity
            )
            nan_frames = np.isnan(gradient).all(axis=2)
            np.testing.assert_array_equal(np.isnan(loss), spoiled_items)
            np.testing.assert_array_equal(nan_frames.all(axis=0), spoiled_items)
            np.testing.assert_array_equal(nan_frames.any(axis=0), spoiled_items)

    def test_gradient_alone_is_refused_too(self, device):
        if device == mx.gpu:
            pytest.skip("a GPU answers with NaN")
        log_probs, targets, _, target_lengths = good().values()

        def loss(x):
            return ctc_loss(x, targets, mx.array([T, T + 1, T]), target_lengths)

        with pytest.raises(RuntimeError, match=SAID):
            mx.eval(mx.grad(loss)(log_probs))
