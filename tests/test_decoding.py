# Which labels greedy and beam search decoding find, and how probable they are.

import math
import re
from itertools import product

import mlx.core as mx
import numpy as np
import pytest
import reference

from mlx_ctc import (
    _ext,
    beam_search_decode,
    ctc_loss,
    decoding,
    greedy_decode,
    merge_tokens,
)

pytestmark = pytest.mark.usefixtures("device")


def random_log_probs(rng, *shape):
    return reference.log_softmax(2 * rng.normal(size=shape)).astype(np.float32)


def labellings(log_probs, blank=0):
    """The probability of every labelling, by enumeration of all paths."""
    T, C = log_probs.shape
    p = {}
    for path in product(range(C), repeat=T):
        labels = tuple(reference.collapse(path, blank))
        score = np.exp(log_probs[np.arange(T), path].astype(float).sum())
        p[labels] = p.get(labels, 0) + score
    return sorted(p.items(), key=lambda item: -item[1])


class TestGreedy:
    @staticmethod
    def expected(log_probs, blank):
        best = log_probs.argmax(axis=1)
        return reference.collapse(best, blank), np.float64(log_probs).max(axis=1).sum()

    @pytest.mark.parametrize("blank", [0, 2])
    def test_best_class_of_each_frame(self, rng, dtype, blank):
        T, N, C = 40, 9, 4
        x = mx.array(random_log_probs(rng, T, N, C), dtype)
        as_read = np.array(x.astype(mx.float32))
        lengths = rng.integers(0, T + 1, N)
        labels, counts, scores = greedy_decode(x, lengths, blank)
        assert labels.shape == (N, T)
        assert labels.dtype == counts.dtype == mx.int32
        assert scores.dtype == (mx.float64 if dtype == mx.float64 else mx.float32)
        for n, length in enumerate(lengths):
            spelt, score = self.expected(as_read[:length, n], blank)
            assert labels[n].tolist() == spelt + [blank] * (T - len(spelt))
            assert counts[n].item() == len(spelt)
            assert scores[n].item() == pytest.approx(score, rel=1e-5)

    def test_tensorflows_example(self):
        probs = np.zeros((6, 2, 4), np.float32)
        probs[:4, 0] = [
            [1, 0, 0, 0],
            [0, 0, 0.4, 0.6],
            [0, 0, 0.4, 0.6],
            [0, 0.9, 0.1, 0],
        ]
        probs[:5, 1, :] = [
            [0.1, 0.9, 0, 0],
            [0, 0.9, 0.1, 0],
            [0, 0, 0.1, 0.9],
            [0, 0.9, 0.1, 0.1],
            [0.9, 0.1, 0, 0],
        ]
        labels, counts, scores = greedy_decode(mx.log(mx.array(probs)), [4, 5], blank=3)
        assert labels[0, : counts[0].item()].tolist() == [0, 1]
        assert labels[1, : counts[1].item()].tolist() == [1, 1, 0]
        np.testing.assert_allclose(
            scores, np.log([1 * 0.6 * 0.6 * 0.9, 0.9**5]), rtol=1e-6
        )

    def test_torchaudios_example(self):
        # ctc_decoder_test.py: a path, its labels, and the frames that begin them.
        path, labels, begins = [2, 2, 0, 3, 3, 3, 0, 3], [2, 3, 3], [0, 3, 7]
        log_probs = mx.log(mx.array(np.eye(4)[path], mx.float32))
        decoded, count, score = greedy_decode(log_probs, 8)
        assert decoded[: count.item()].tolist() == labels
        assert score.item() == 0
        spans = merge_tokens(path, [0.0] * 8)
        assert [span.token for span in spans] == labels
        assert [span.start for span in spans] == begins

    def test_logits_have_the_same_labels(self, rng):
        logits = 3 * mx.array(rng.normal(size=(20, 5, 6)), mx.float32)
        log_probs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        for a, b in zip(
            greedy_decode(logits, 20, with_logits=True),
            greedy_decode(log_probs, 20),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-6)

    def test_one_sequence_has_no_batch_axis(self, rng):
        x = mx.array(random_log_probs(rng, 20, 5))
        labels, count, score = greedy_decode(x, 15)
        assert (labels.shape, count.shape, score.shape) == ((20,), (), ())
        spelt, expected = self.expected(np.array(x[:15]), 0)
        assert labels[: count.item()].tolist() == spelt
        assert score.item() == pytest.approx(expected, rel=1e-6)

    def test_is_lazy_and_compiles(self, rng):
        x = mx.array(random_log_probs(rng, 20, 3, 5))
        lengths = mx.array([20, 7, 0])
        expected = greedy_decode(x, lengths)
        for result, eager in zip(
            mx.compile(greedy_decode)(x, lengths), expected, strict=True
        ):
            np.testing.assert_array_equal(result, eager)

    def test_what_lies_past_the_length_does_no_harm(self, rng):
        x = random_log_probs(rng, 20, 2, 5)
        expected = greedy_decode(mx.array(x), [20, 8])
        x[8:, 1] = np.nan
        for result, clean in zip(
            greedy_decode(mx.array(x), [20, 8]), expected, strict=True
        ):
            np.testing.assert_array_equal(result, clean)

    @pytest.mark.parametrize("batch_first", [False, True])
    @pytest.mark.parametrize("blank", [0, 2, -1])
    def test_few_known_scores_at_once_as_in_the_graph(
        self, rng, dtype, with_logits, blank, batch_first
    ):
        x = mx.array(random_log_probs(rng, 30, 4, 37), dtype)
        x[1, 1, 5] = math.nan
        single, every_other = x[:, 0], x[::2, ::2, ::-1]
        mx.eval(x, single, every_other)
        options = {"with_logits": with_logits, "batch_first": batch_first}
        for scores in (x, single, every_other):
            for frames in (None, 2, 0):
                at_once = decoding.at_once(scores, frames, blank, **options)
                on_gpu = mx.default_device() == mx.gpu
                if on_gpu or not _ext.is_known(scores):  # as with MLX for CUDA
                    assert at_once is None
                    continue
                expected = greedy_decode(
                    scores,
                    frames,
                    blank,
                    with_frames=True,
                    stream=mx.default_stream(mx.default_device()),
                    **options,
                )
                for result, in_graph in zip(at_once, expected, strict=True):
                    assert result.shape == in_graph.shape
                    np.testing.assert_array_equal(result, in_graph)

    def test_what_is_not_decoded_at_once(self, rng):
        x = mx.array(random_log_probs(rng, 30, 4, 5))
        large = mx.zeros((66, 1000))
        mx.eval(x, large)

        def at_once(scores, frames=None, blank=0):
            return decoding.at_once(scores, frames, blank, False, False)

        for found in (
            at_once(x + 0),
            at_once(large),
            at_once(mx.array([[1, 2]])),
            at_once(x[None]),
            at_once(np.array(x)),
            at_once(x, 31),
            at_once(x, -1),
            at_once(x, 2**70),
            at_once(x, mx.array([30] * 4)),
            at_once(x, True),
            at_once(x, 30, 5),
            at_once(x, 30, -6),
            at_once(x, 30, 2**70),
        ):
            assert found is None
        for frames in (31, 2**31, True):
            with pytest.raises(ValueError, match="input_lengths"):
                greedy_decode(x, frames)

    @staticmethod
    def assert_only_the_second_is_invalid(x, **options):
        """Of two sequences, which the last frame would tell if it were used."""
        T = x.shape[0] - 1
        whole = mx.array(x)
        labels, counts, scores = greedy_decode(whole, [T, T], **options)
        assert labels[1].tolist() == [0] * (T + 1)
        assert counts[1].item() == 0
        assert math.isnan(scores[1].item())
        for results, alone in zip(
            (labels, counts, scores),
            greedy_decode(whole[:, 0], T, **options),
            strict=True,
        ):
            np.testing.assert_array_equal(results[0], alone)
        assert counts[0].item() > 0
        assert math.isfinite(scores[0].item())

    @pytest.mark.parametrize("classes", [5, 33])
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_bad_number_leaves_no_labels(self, rng, bad, classes, with_logits):
        for c in range(classes):
            x = random_log_probs(rng, 21, 2, classes)
            x[20] = bad  # past the lengths
            x[3, 1, c] = bad
            self.assert_only_the_second_is_invalid(x, with_logits=with_logits)

    def test_frames_of_nan_leave_no_labels(self, rng, with_logits):
        x = random_log_probs(rng, 21, 2, 5)
        x[:, 1] = np.nan
        self.assert_only_the_second_is_invalid(x, with_logits=with_logits)

    def test_probabilities_are_no_log_probs(self, rng):
        x = random_log_probs(rng, 21, 2, 5)
        x[:, 1] = np.exp(x[:, 1])
        self.assert_only_the_second_is_invalid(x)

    def test_logits_of_minus_infinity_are_no_frame(self, rng):
        x = random_log_probs(rng, 21, 2, 5)
        x[3, 1] = -np.inf
        self.assert_only_the_second_is_invalid(x, with_logits=True)
        _, counts, scores = greedy_decode(mx.array(x), 20)
        assert counts[1].item() > 0
        assert scores[1].item() == -math.inf

    def test_logits_may_be_positive(self, rng):
        x = mx.array(10 + random_log_probs(rng, 20, 5))
        assert greedy_decode(x, 20, with_logits=True)[1].item() > 0

    def test_a_rounding_error_above_zero_is_a_log_prob(self):
        x = mx.array([[-9.0, 9e-4]])
        assert greedy_decode(x, 1)[0].tolist() == [1]
        x = mx.array([[-9.0, 1.1e-3]])
        assert greedy_decode(x, 1)[0].tolist() == [0]

    @pytest.mark.parametrize("length", [-1, 6])
    def test_length_out_of_range(self, length):
        x = mx.log(mx.array([[[0.2, 0.8]] * 2] * 5))
        with pytest.raises(ValueError, match=r"^\[greedy_decode\] .* input_lengths\[1"):
            greedy_decode(x, [5, length])
        labels, counts, scores = greedy_decode(x, mx.array([5, length]) + 0)
        assert labels.tolist() == [[1, 0, 0, 0, 0], [0] * 5]
        assert counts.tolist() == [1, 0]
        assert np.isnan(scores).tolist() == [False, True]

    def test_frames_and_probabilities_are_those_of_the_path(self, rng, with_logits):
        T, N = 40, 5
        x = random_log_probs(rng, T, N, 4)
        lengths = [40, 17, 3, 1, 0]
        scores = mx.array(x + 2 if with_logits else x)
        labels, counts, _, frames, probabilities = greedy_decode(
            scores, lengths, 1, with_frames=True, with_logits=with_logits
        )
        for n, length in enumerate(lengths):
            count = counts[n].item()
            best = x[:length, n]
            spans = merge_tokens(best.argmax(axis=1), np.exp(best.max(axis=1)), 1)
            assert labels[n, :count].tolist() == [span.token for span in spans]
            assert frames[n, :count].tolist() == [span.start for span in spans]
            expected = [span.score for span in spans]
            np.testing.assert_allclose(probabilities[n, :count], expected, rtol=1e-5)
            assert not np.array(frames)[n, count:].any()
            assert not np.array(probabilities)[n, count:].any()

    def test_torchaudios_example_has_its_frames(self):
        log_probs = mx.log(mx.array(np.eye(4)[[2, 2, 0, 3, 3, 3, 0, 3]], mx.float32))
        *_, frames, probabilities = greedy_decode(log_probs, 8, with_frames=True)
        assert frames.tolist() == [0, 3, 7, 0, 0, 0, 0, 0]
        assert probabilities.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]

    @pytest.mark.parametrize("transposed", [False, True])
    @pytest.mark.parametrize("C", [1, 3, 31, 700])
    def test_cpu_and_gpu_decode_alike(self, rng, dtype, C, with_logits, transposed):
        T, N = 30, 7
        x = random_log_probs(rng, T, N, C)
        x[3, 1, C // 2] = np.nan
        x[4, 2, C - 1] = np.inf
        x[5, 3] = -np.inf
        x[:, 4, : C // 2] = -np.inf
        x = mx.array(x, dtype)
        if transposed:
            x = mx.contiguous(x.transpose(2, 1, 0)).transpose(2, 1, 0)
        lengths = mx.array([30, 30, 30, 30, 9, -1, 31]) + 0  # not known at the call
        options = {"with_logits": with_logits}
        with mx.stream(mx.cpu):
            found = greedy_decode(x, lengths, with_frames=True, **options)
        expected = decoding.decode_in_ops(x, lengths, 0, **options)
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)

    def test_first_of_equal_classes_wins(self):
        for C in (3, 64, 100):
            for first in range(1, C):
                x = np.full((1, C), -5.0, np.float32)
                x[0, first:] = -1.0
                assert greedy_decode(mx.array(x), 1)[0].item() == first

    def test_may_stand_beside_a_loss(self, rng):
        def loss_and_labels(x):
            loss = ctc_loss(x, [[1, 2]], [9], [2], reduction="sum")
            return loss, greedy_decode(x, [9])

        x = mx.array(random_log_probs(rng, 9, 1, 4))
        (_, found), gradient = mx.value_and_grad(loss_and_labels)(x)
        assert found[0].tolist() == greedy_decode(x, [9])[0].tolist()
        assert mx.abs(gradient).sum().item() > 0

    def test_has_no_derivative_on_the_cpu(self, rng):
        x = mx.array(random_log_probs(rng, 9, 4))
        with (
            mx.stream(mx.cpu),
            pytest.raises(ValueError, match=r"^\[greedy_decode\] A labelling cannot"),
        ):
            mx.grad(lambda x: greedy_decode(x, 9)[2])(x)

    def test_is_vectorised(self, rng):
        x = mx.array(random_log_probs(rng, 4, 9, 3, 5))
        lengths = mx.array([[9, 5, 3]] * 4)
        found = mx.vmap(greedy_decode)(x, lengths)
        for i in range(4):
            expected = greedy_decode(x[i], lengths[i])
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one[i], other)

    @pytest.mark.parametrize(("T", "N"), [(0, 3), (5, 0), (0, 0)])
    def test_nothing_to_decode(self, T, N):
        labels, counts, scores = greedy_decode(mx.zeros((T, N, 3)), [T] * N)
        assert labels.shape == (N, T)
        assert counts.tolist() == [0] * N
        assert scores.tolist() == [0] * N


class TestBeamSearch:
    @pytest.mark.parametrize("blank", [0, 2])
    @pytest.mark.parametrize(("T", "C"), [(1, 3), (4, 3), (6, 3), (5, 4)])
    def test_wide_beam_is_exhaustive(self, rng, T, C, blank):
        for _ in range(5):
            x = random_log_probs(rng, T, C)
            expected = labellings(x, blank)
            found = beam_search_decode(mx.array(x), T, 10_000, blank, nbest=10_000)
            assert len(found) == len(expected)
            for (labels, score), (other, p) in zip(found, expected, strict=True):
                assert tuple(labels) == other
                assert score == pytest.approx(math.log(p), rel=1e-9, abs=1e-9)

    def test_score_is_the_loss(self, rng):
        T, N = 60, 5
        x = mx.array(reference.log_softmax(8 * rng.normal(size=(T, N, 7))), mx.float32)
        lengths = [60, 50, 40, 30, 20]
        searched = beam_search_decode(x, lengths, 4, rescore=False)
        rescored = beam_search_decode(x, lengths, 4)
        for n, length in enumerate(lengths):
            [(labels, pruned)], [best] = searched[n], rescored[n]
            with mx.stream(mx.cpu):
                frames = x[:length, n].astype(mx.float64)
                size = len(best.labels)
                loss = ctc_loss(frames, best.labels, length, size, reduction="sum")
            assert best.score == pytest.approx(-loss.item(), rel=1e-12)
            if best.labels == labels:
                assert pruned <= best.score + 1e-12  # what was pruned is lost

    def test_sum_over_paths_wins_over_the_best_path(self):
        probs = mx.array([[0.6, 0.4], [0.6, 0.4]])
        assert greedy_decode(mx.log(probs), 2)[1].item() == 0
        [best] = beam_search_decode(mx.log(probs), 2)
        assert best.labels == [1]
        assert best.score == pytest.approx(math.log(0.64), rel=1e-6)

    # ctc_decoder_ops_test.py: probabilities, taken as logits.
    TENSORFLOW = (
        (0.30999, 0.309938, 0.0679938, 0.0673362, 0.0708352, 0.173908),
        (0.215136, 0.439699, 0.0370931, 0.0393967, 0.0381581, 0.230517),
        (0.199959, 0.489485, 0.0233221, 0.0251417, 0.0233289, 0.238763),
        (0.279611, 0.452966, 0.0204795, 0.0209126, 0.0194803, 0.20655),
        (0.51286, 0.288951, 0.0243026, 0.0220788, 0.0219297, 0.129878),
    )

    def test_tensorflows_example(self):
        logits = mx.array(self.TENSORFLOW) + 2
        first, second = beam_search_decode(
            logits, 5, 2, 5, 2, with_logits=True, rescore=False
        )
        assert first.labels == [1, 0]
        assert second.labels == [1]
        assert first.score == pytest.approx(-5.811451, abs=1e-5)
        assert second.score == pytest.approx(-6.63339, abs=1e-5)

    def test_kerass_example(self):
        log_probs = mx.log(mx.array(self.TENSORFLOW))
        first, second = beam_search_decode(log_probs, 5, 2, 5, 2, rescore=False)
        assert first.labels == [1, 0]
        assert second.labels == [0, 1, 0]
        # Of these two, the sum of all paths prefers the other.
        best, other = beam_search_decode(log_probs, 5, 2, 5, 2)
        assert (best.labels, other.labels) == ([0, 1, 0], [1, 0])

    def test_what_flashlight_finds_in_it(self):
        # flashlight-text 0.0.7: LexiconFreeDecoder, CTC, ZeroLM, log_add.
        x = mx.log(mx.array(self.TENSORFLOW))
        found = beam_search_decode(x, 5, 2000, 5, 2000)
        assert len(found) == 1996
        for (labels, score), (their_labels, their_score) in zip(
            found,
            [
                ([0, 1, 0], -2.203385),
                ([1, 0], -2.296345),
                ([0, 1], -2.906321),
                ([1, 0, 1], -3.002042),
                ([1, 0, 1, 0], -3.299480),
                ([1, 1, 0], -3.385019),
            ],
            strict=False,
        ):
            assert labels == their_labels
            assert score == pytest.approx(their_score, abs=2e-6)

    # ctc_beam_search_test.cc
    PLAIN = np.zeros((5, 6), np.float32)
    PLAIN[:, 1] = 0.6, 0.5, 0.4, 0.4, 0.4
    PLAIN[:, 3] = 0.4, 0.5, 0.6, 0.6, 0.6

    def test_tensorflows_plain_decoder(self):
        found = beam_search_decode(mx.log(mx.array(self.PLAIN)), 5, 30, 5, 3)
        assert [labels for labels, _ in found] == [[1, 3], [1, 3, 1], [3, 1, 3]]

    def test_tensorflows_dictionary_decoder(self):
        # Its scorer sees the last label alone.
        def scorer(prefix, label):
            last = label if label is not None else (prefix or [3])[-1]
            return 0.0 if last == 3 else math.log(0.01)

        log_probs = mx.log(mx.array(self.PLAIN))
        found = beam_search_decode(log_probs, 5, 3, 5, 3, scorer=scorer)
        assert [labels for labels, _ in found] == [[3], [1, 3], [3, 1]]

    # Rising with the label, which the scorer turns round; the first label stands
    # between equal ones.
    SELECTION = (
        (-1e6, 1, 2, 3, 4, -1e6),
        (1e6, 0, 0, 0, 0, -1e6),
        (-1e6, 1.1, 2.2, 3.3, 4.4, -1e6),
    )

    @pytest.mark.parametrize(
        ("pruning", "expected"),
        [
            ({}, [[1, 0, 1], [1, 0, 2], [2, 0, 1], [1, 0, 3], [2, 0, 2]]),
            (
                {"max_labels": 2},
                [[3, 0, 3], [3, 0, 4], [4, 0, 3], [4, 0, 4], [3]],
            ),
            (
                {"label_threshold": 2.0},
                [[2, 0, 3], [2, 0, 4], [3, 0, 3], [3, 0, 4], [4, 0, 3]],
            ),
            (
                {"max_labels": 4, "label_threshold": 3.3001},
                [[1, 0, 1], [1, 0, 2], [2, 0, 1], [1, 0, 3], [2, 0, 2]],
            ),
        ],
    )
    def test_tensorflows_label_selection(self, pruning, expected):
        # TensorFlow takes any scores; a frame's greatest becomes 0 here.
        x = np.array(self.SELECTION, np.float32)
        found = beam_search_decode(
            x - x.max(axis=1, keepdims=True),
            3,
            5,
            5,
            5,
            scorer=lambda _, label: 0.0 if label is None else -100.0 * label,
            **pruning,
        )
        assert [labels for labels, _ in found] == expected

    def test_beam_threshold_drops_what_is_far_below(self, rng):
        x = mx.array(random_log_probs(rng, 8, 4))
        everything = beam_search_decode(x, 8, 10_000, nbest=10_000)
        near = beam_search_decode(
            x, 8, 10_000, nbest=10_000, beam_threshold=3.0, rescore=False
        )
        assert len(near) < len(everything)
        assert near[0].labels == everything[0].labels
        assert all(score >= near[0].score - 3.0 for _, score in near)

    def test_max_labels_of_all_changes_nothing(self, rng):
        x = mx.array(random_log_probs(rng, 20, 3, 9))
        expected = beam_search_decode(x, 20, 50, nbest=50)
        assert beam_search_decode(x, 20, 50, nbest=50, max_labels=8) == expected

    def test_narrow_beam_finds_what_the_wide_one_does(self, rng):
        x = mx.array(random_log_probs(rng, 50, 4, 30))
        narrow = beam_search_decode(x, 50, 20)
        wide = beam_search_decode(x, 50, 500)
        for [(_, score)], [(_, better)] in zip(narrow, wide, strict=True):
            assert better - 0.5 <= score <= better + 1e-9

    def test_scorer_is_asked_once_for_each_extension_and_at_the_end(self, rng):
        asked = []

        def scorer(prefix, label):
            assert isinstance(prefix, tuple)
            asked.append((prefix, label))
            return -0.1

        x = mx.array(random_log_probs(rng, 6, 3))
        found = beam_search_decode(x, 6, 1000, nbest=1000, scorer=scorer)
        assert len(asked) == len(set(asked))
        ends = {prefix for prefix, label in asked if label is None}
        assert ends == {tuple(labels) for labels, _ in found}
        plain = beam_search_decode(x, 6, 1000, nbest=1000)
        without = {tuple(labels): score for labels, score in plain}
        for labels, score in found:
            expected = without[tuple(labels)] - 0.1 * (len(labels) + 1)
            assert score == pytest.approx(expected)

    @pytest.mark.parametrize(
        "returned",
        [None, "1", (1.0,), math.nan, math.inf, [0.5], 10**320, np.zeros(2)],
        ids=lambda value: repr(value)[:20],
    )
    def test_what_is_no_score_names_scorer_prefix_and_label(self, returned):
        def scorer(prefix, label):
            return returned if prefix == (1,) and label == 2 else 0.0

        got = repr(returned)
        message = (
            "[beam_search_decode] Expected scorer(prefix, label) to return a finite "
            f"number or -inf but got {got} for prefix (1,) and label 2."
        )
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            beam_search_decode(mx.zeros((3, 3)), 3, scorer=scorer)

    def test_what_is_no_score_at_the_end_names_label_none(self):
        def scorer(prefix, label):
            return math.nan if label is None else 0.0

        with pytest.raises(
            ValueError, match=r"but got nan for prefix .* label None\.$"
        ):
            beam_search_decode(mx.zeros((3, 3)), 3, scorer=scorer)

    @pytest.mark.parametrize(
        "number", [1, True, np.float32(1), np.int64(1), mx.array(1.0)], ids=repr
    )
    def test_any_number_is_a_score(self, number):
        x = mx.zeros((2, 2))
        [one] = beam_search_decode(x, 2, scorer=lambda prefix, label: 1.0)
        [other] = beam_search_decode(x, 2, scorer=lambda prefix, label: number)
        assert one == other

    def test_minus_infinity_rules_a_label_out(self):
        x = mx.log(mx.array([[0.2, 0.5, 0.3]]))
        [best] = beam_search_decode(
            x, 1, scorer=lambda _, label: -math.inf if label == 1 else 0.0
        )
        assert best.labels == [2]

    def test_scorers_error_is_raised(self):
        def scorer(prefix, label):
            raise KeyError("no such word")

        with pytest.raises(KeyError, match="no such word"):
            beam_search_decode(mx.zeros((3, 2)), 3, scorer=scorer)

    @pytest.mark.parametrize("error", [KeyError, RuntimeError, KeyboardInterrupt])
    def test_error_of_a_scores_conversion_is_raised(self, error):
        class Score:
            def __float__(self):
                raise error("no such word")

        with pytest.raises(error, match="no such word"):
            beam_search_decode(mx.zeros((3, 2)), 3, scorer=lambda *_: Score())

    @pytest.mark.parametrize("error", [TypeError, ValueError, OverflowError])
    def test_error_of_what_is_no_number_is_the_cause(self, error):
        class Score:
            def __float__(self):
                raise error("a row")

        with pytest.raises(ValueError, match="a finite number or -inf") as raised:
            beam_search_decode(mx.zeros((3, 2)), 3, scorer=lambda *_: Score())
        assert isinstance(raised.value.__cause__, error)

    def test_logits_are_normalised(self, rng):
        logits = 3 * rng.normal(size=(20, 5))
        log_probs = mx.array(reference.log_softmax(logits), mx.float32)
        [a] = beam_search_decode(mx.array(logits, mx.float32), 20, with_logits=True)
        [b] = beam_search_decode(log_probs, 20)
        assert a.labels == b.labels
        assert a.score == pytest.approx(b.score, rel=1e-5)

    def test_each_sequence_is_as_if_alone(self, rng):
        x = mx.array(random_log_probs(rng, 30, 12, 6))
        lengths = [30 - n for n in range(12)]
        together = beam_search_decode(x, lengths, 20, nbest=3)
        for n, length in enumerate(lengths):
            assert together[n] == beam_search_decode(x[:, n], length, 20, nbest=3)

    def test_same_every_run(self, rng):
        x = mx.array(np.round(random_log_probs(rng, 30, 8, 6)))  # many ties
        expected = beam_search_decode(x, 30, 10, nbest=10)
        for _ in range(5):
            assert beam_search_decode(x, 30, 10, nbest=10) == expected

    @pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float64])
    def test_other_dtypes(self, device, rng, dtype):
        if dtype == mx.float64 and device == mx.gpu:
            pytest.skip("MLX has float64 on the CPU only")
        x = mx.array(random_log_probs(rng, 20, 2, 5), dtype)
        expected = beam_search_decode(x.astype(mx.float32), 20)
        assert beam_search_decode(x, 20) == expected

    def test_impossible_labellings_are_left_out(self):
        x = np.full((3, 4), -np.inf, np.float32)
        x[:, 1] = 0
        assert beam_search_decode(mx.array(x), 3, nbest=5) == [([1], 0.0)]
        x[1] = -np.inf
        assert beam_search_decode(mx.array(x), 3, nbest=5) == []

    def test_probabilities_are_refused(self):
        x = np.full((4, 2, 3), -1.0, np.float32)
        x[2, 1, 0] = 0.25
        x[3, 1, 2] = 0.5
        message = (
            "[beam_search_decode] Expected log_probs of at most 0 but got 0.25 in "
            "frame 2 of sequence 1, class 0."
        )
        with pytest.raises(ValueError, match=re.escape(message)):
            beam_search_decode(x, [4, 4])
        with pytest.raises(ValueError, match=re.escape(message)):
            beam_search_decode(x, [4, 4], scorer=lambda prefix, label: 0.0)

    def test_positive_values_past_the_length_and_of_logits_are_taken(self):
        x = np.full((4, 2, 3), -1.0, np.float32)
        x[2, 1, 0] = 5
        assert not math.isnan(beam_search_decode(x, [4, 2])[1][0].score)
        assert not math.isnan(
            beam_search_decode(x, [4, 4], with_logits=True)[1][0].score
        )

    def test_rounding_above_0_is_taken(self):
        x = np.full((4, 1, 3), 9e-4, np.float32)
        assert beam_search_decode(x, [4])[0][0].score > 0

    def test_bad_number_makes_its_item_nan(self, rng):
        x = random_log_probs(rng, 10, 3, 4)
        x[9, 0, 2] = np.nan  # past the length
        x[5, 1, 0] = np.nan
        first, second, third = beam_search_decode(mx.array(x), [9, 10, 10])
        assert second[0].labels == []
        assert math.isnan(second[0].score)
        assert math.isfinite(first[0].score)
        assert math.isfinite(third[0].score)

    def test_no_frames_say_nothing(self):
        assert beam_search_decode(mx.zeros((4, 2, 3)), [0, 0]) == [[([], 0.0)]] * 2
        assert beam_search_decode(mx.zeros((4, 0, 3)), []) == []

    def test_ten_thousand_frames(self, rng):
        x = mx.array(random_log_probs(rng, 10_000, 20))
        [(labels, score)] = beam_search_decode(x, 10_000, 8)
        _, count, path_score = greedy_decode(x, 10_000)
        assert len(labels) == pytest.approx(count.item(), rel=0.05)
        assert score > path_score.item()

    @pytest.mark.parametrize("integer", [np.int64, np.uint8, mx.array])
    def test_options_may_be_any_integer(self, rng, integer):
        if integer is mx.array and not hasattr(mx.array, "__index__"):
            pytest.skip("before MLX 0.32.3 an mx.array has no __index__")
        x = mx.array(random_log_probs(rng, 20, 6))
        expected = beam_search_decode(x, 20, 5, nbest=3, max_labels=2)
        options = {"beam_width": integer(5), "nbest": integer(3)}
        assert beam_search_decode(x, 20, max_labels=integer(2), **options) == expected

    def test_no_more_can_be_returned_than_the_beam_holds(self):
        with pytest.raises(
            ValueError,
            match=r"^\[beam_search_decode\] Expected nbest .*beam_width = 5 but got 6",
        ):
            beam_search_decode(mx.zeros((3, 4)), 3, beam_width=5, nbest=6)
        assert len(beam_search_decode(mx.zeros((3, 4)), 3, beam_width=5, nbest=5)) == 5

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("beam_width", 0),
            ("beam_width", 2.0),
            ("beam_width", True),
            ("beam_width", np.float64(2)),
            ("beam_width", 2**31),
            ("nbest", 0),
            ("nbest", "1"),
            ("max_labels", np.bool_(True)),
            ("max_labels", 0),
            ("label_threshold", -1.0),
            ("beam_threshold", math.nan),
            ("blank", 3),
            ("input_lengths", [6]),
            ("input_lengths", mx.array([6])),
            ("log_probs", mx.zeros((5, 1, 3), mx.int32)),
            ("log_probs", mx.zeros((3,))),
        ],
    )
    def test_refusals(self, name, value):
        arguments = {"log_probs": mx.zeros((5, 1, 3)), "input_lengths": [5]}
        with pytest.raises(ValueError, match=rf"^\[beam_search_decode\] .*{name}.*"):
            beam_search_decode(**{**arguments, name: value})
