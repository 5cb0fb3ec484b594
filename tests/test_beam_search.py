# What pruning, rescoring, scorers and float64 do to a beam search.

import copy
import math
import pickle
import re
import sys
import threading
import time

import mlx.core as mx
import numpy as np
import pytest
import reference

from mlx_ctc import (
    Hypothesis,
    _ext,
    beam_search_decode,
    ctc_loss,
    forced_align,
    greedy_decode,
    merge_tokens,
)


def random_log_probs(rng, T, C, scale=2.0):
    return reference.log_softmax(scale * rng.normal(size=(T, C))).astype(np.float32)


def log_probability(x, labels):
    """In float64, of log_probs (T, C)."""
    return -reference.ctc(x.astype(np.float64), labels, 0)[0]


def plain_search(x, width, beam_threshold=math.inf):
    """Prefix beam search as in a textbook: every class, in every frame."""
    beam = {(): (0.0, -math.inf)}  # paths that end in a blank, and in the last label
    for frame in x.astype(np.float64):
        found = {}

        def add(prefix, i, score, found=found):
            sums = found.setdefault(prefix, [-math.inf, -math.inf])
            sums[i] = np.logaddexp(sums[i], score)

        for prefix, (in_blank, in_label) in beam.items():
            both = np.logaddexp(in_blank, in_label)
            add(prefix, 0, both + frame[0])
            for c in range(1, len(frame)):
                repeats = bool(prefix) and c == prefix[-1]
                if repeats:
                    add(prefix, 1, in_label + frame[c])
                add((*prefix, c), 1, (in_blank if repeats else both) + frame[c])
        scores = {prefix: np.logaddexp(*sums) for prefix, sums in found.items()}
        kept = sorted(scores, key=lambda prefix: -scores[prefix])[:width]
        least = scores[kept[0]] - beam_threshold
        beam = {prefix: found[prefix] for prefix in kept if scores[prefix] >= least}
    return [(list(prefix), np.logaddexp(*sums)) for prefix, sums in beam.items()]


class TestPruning:
    @pytest.mark.parametrize("threshold", [math.inf, 6.0, 0.5, 0.0])
    @pytest.mark.parametrize("scale", [0.05, 1.0, 4.0])
    @pytest.mark.parametrize(("T", "C", "width"), [(12, 5, 7), (8, 150, 3), (5, 70, 1)])
    def test_finds_what_a_search_over_all_classes_finds(
        self, rng, T, C, width, scale, threshold
    ):
        x = random_log_probs(rng, T, C, scale)
        options = {"nbest": width, "beam_threshold": threshold, "rescore": False}
        found = beam_search_decode(mx.array(x), T, width, **options)
        expected = plain_search(x, width, threshold)
        assert [labels for labels, _ in found] == [labels for labels, _ in expected]
        for (_, score), (_, other) in zip(found, expected, strict=True):
            assert score == pytest.approx(other, rel=1e-12)

    @pytest.mark.parametrize("width", [1, 4, 40])
    def test_labels_that_are_equal_are_taken_in_order(self, width):
        x = mx.full((1, 1000), -math.log(1000))
        found = beam_search_decode(x, 1, width, nbest=width)
        assert [labels for labels, _ in found] == [[], *([c] for c in range(1, width))]


class TestRescoring:
    def test_score_is_the_logarithm_of_the_probability(self, rng):
        for scale in (0.3, 2.0, 10.0):
            x = random_log_probs(rng, 70, 9, scale)
            for labels, score in beam_search_decode(mx.array(x), 70, 6, nbest=6):
                assert score == pytest.approx(log_probability(x, labels), rel=1e-12)

    def test_best_is_never_less_probable_than_the_greedy_labelling(self, rng):
        less_before = 0
        for _ in range(60):
            x = random_log_probs(rng, 40, 12, 1.5)
            labels, count, _ = greedy_decode(mx.array(x), 40)
            greedy = log_probability(x, labels[: count.item()].tolist())
            [best] = beam_search_decode(mx.array(x), 40, 1)
            assert best.score >= greedy - 1e-9
            [searched] = beam_search_decode(mx.array(x), 40, 1, rescore=False)
            less_before += log_probability(x, searched.labels) < greedy - 1e-9
        assert less_before > 0

    def test_best_comes_first(self, rng):
        x = mx.array(random_log_probs(rng, 40, 6, 1.0))
        searched = beam_search_decode(x, 40, 8, nbest=8, rescore=False)
        rescored = beam_search_decode(x, 40, 8, nbest=8)
        scores = [score for _, score in rescored]
        assert scores == sorted(scores, reverse=True)
        assert [a.labels for a in searched] != [b.labels for b in rescored]

    def test_of_the_greedy_labelling_a_scorer_is_asked_too(self, rng):
        for _ in range(20):
            x = random_log_probs(rng, 20, 6, 1.0)
            asked = []

            def scorer(prefix, label, asked=asked):
                asked.append((prefix, label))
                return -0.3 if label is None else 0.1 * label

            [best] = beam_search_decode(mx.array(x), 20, 1, scorer=scorer)
            expected = log_probability(x, best.labels) - 0.3 + 0.1 * sum(best.labels)
            assert best.score == pytest.approx(expected, rel=1e-9)
            assert len(asked) == len(set(asked))

    def test_labelling_that_a_scorer_rules_out_does_not_come_back(self):
        x = mx.log(mx.array([[0.1, 0.8, 0.1]]))

        def scorer(prefix, label):
            return -math.inf if label == 1 or prefix == (1,) else 0.0

        found = beam_search_decode(x, 1, 3, nbest=3, scorer=scorer)
        assert sorted(labels for labels, _ in found) == [[], [2]]


class TestTimes:
    def test_are_those_of_the_best_path(self, rng):
        x = random_log_probs(rng, 50, 7)
        for best in beam_search_decode(mx.array(x), 50, 10, nbest=10):
            path, scores = forced_align(mx.array(x), best.labels, 50, len(best.labels))
            spans = merge_tokens(path, mx.exp(scores))
            assert best.frames == [span.start for span in spans]
            expected = [span.score for span in spans]
            np.testing.assert_allclose(best.probabilities, expected, rtol=1e-6)

    def test_torchaudios_example(self):
        path = [2, 2, 0, 3, 3, 3, 0, 3]
        log_probs = mx.log(mx.array(np.eye(4)[path], mx.float32))
        [best] = beam_search_decode(log_probs, 8)
        assert (best.labels, best.frames) == ([2, 3, 3], [0, 3, 7])
        assert best.probabilities == [1.0, 1.0, 1.0]

    def test_each_label_has_one(self, rng, with_logits):
        x = mx.array(random_log_probs(rng, 30, 5)[:, None].repeat(4, axis=1))
        for [best] in beam_search_decode(x, [30, 9, 1, 0], 5, with_logits=with_logits):
            assert len(best.labels) == len(best.frames) == len(best.probabilities)
            assert best.frames == sorted(set(best.frames))

    def test_of_a_sequence_with_a_bad_number_there_are_none(self):
        [best] = beam_search_decode(mx.full((3, 2), math.nan), 3)
        assert (best.labels, best.frames, best.probabilities) == ([], [], [])


class TestHypothesis:
    def test_unpacks_as_labels_and_score(self):
        labels, score = Hypothesis([1, 2], -0.5, [0, 3], [0.25, 0.75])
        assert (labels, score) == ([1, 2], -0.5)
        assert Hypothesis(labels, score) == (labels, score)

    def test_shows_all_it_has(self):
        hypothesis = Hypothesis([1], -0.5, [4], [0.25])
        shown = "Hypothesis(labels=[1], score=-0.5, frames=[4], probabilities=[0.25])"
        assert repr(hypothesis) == shown

    @pytest.mark.parametrize(
        "copied", [copy.copy, copy.deepcopy, lambda h: pickle.loads(pickle.dumps(h))]
    )
    def test_copies_whole(self, copied):
        hypothesis = Hypothesis([1], -0.5, [4], [0.25])
        assert repr(copied(hypothesis)) == repr(hypothesis)


class TestPrefixScorer:
    @pytest.mark.parametrize("blank", [0, 3])
    @pytest.mark.parametrize("width", [4, 1000])
    def test_is_a_scorer_of_all_labels(self, rng, width, blank):
        x = mx.array(random_log_probs(rng, 7, 5))
        table = rng.normal(size=(5, 5))
        table[1, 2] = -np.inf

        def scorer(prefix, label):
            last = prefix[-1] if prefix else blank
            return table[last, blank if label is None else label]

        def prefix_scorer(prefix):
            return table[prefix[-1] if prefix else blank]

        options = {"blank": blank, "nbest": width}
        expected = beam_search_decode(x, 7, width, scorer=scorer, **options)
        found = beam_search_decode(x, 7, width, prefix_scorer=prefix_scorer, **options)
        assert found == expected

    def test_is_asked_once_for_each_prefix(self, rng):
        asked = []

        def prefix_scorer(prefix):
            asked.append(prefix)
            return [0.1, -0.2, 0.3]

        x = mx.array(random_log_probs(rng, 6, 3))
        found = beam_search_decode(x, 6, 1000, nbest=1000, prefix_scorer=prefix_scorer)
        assert len(asked) == len(set(asked))
        assert set(asked) == {tuple(labels) for labels, _ in found}

    @pytest.mark.parametrize(
        "row",
        [
            [0.5, 1.0, 2.0],
            (0.5, 1, 2),
            np.array([0.5, 1, 2], np.float16),
            np.array([2, 9, 1, 9, 0.5])[::-2],
            mx.array([0.5, 1, 2], mx.bfloat16),
        ],
        ids=lambda row: type(row).__name__,
    )
    def test_any_array_is_a_row(self, rng, row):
        x = mx.array(random_log_probs(rng, 9, 3))
        expected = beam_search_decode(x, 9, prefix_scorer=lambda _: [0.5, 1.0, 2.0])
        assert beam_search_decode(x, 9, prefix_scorer=lambda _: row) == expected

    @pytest.mark.parametrize(
        ("row", "says"),
        [
            ([0.0, 1.0], "shape (3,) but got (2,) for prefix ()."),
            (0.0, "shape (3,) but got () for prefix ()."),
            (None, "shape (3,) but got () for prefix ()."),
            ("abc", "3 numbers but got 'abc' for prefix ()."),
            ([0, 10**320, 1], f"but got [0, {10**320}, 1] for prefix ()."),
            ([0, math.nan, 1], "or -inf but got nan for prefix () and label 1."),
            ([0, 1, math.inf], "or -inf but got inf for prefix () and label 2."),
        ],
    )
    def test_what_is_no_row_is_named(self, row, says):
        with pytest.raises(ValueError, match=re.escape(says) + "$"):
            beam_search_decode(mx.zeros((3, 3)), 3, prefix_scorer=lambda _: row)

    def test_its_error_is_raised(self):
        def prefix_scorer(prefix):
            raise KeyError("no such word")

        with pytest.raises(KeyError, match="no such word"):
            beam_search_decode(mx.zeros((3, 2)), 3, prefix_scorer=prefix_scorer)

    def test_there_is_one_scorer(self):
        with pytest.raises(ValueError, match="one scorer but got scorer and prefix_"):
            beam_search_decode(
                mx.zeros((3, 2)), 3, scorer=lambda *_: 0, prefix_scorer=lambda _: [0, 0]
            )


class TestFloat64:
    def test_a_difference_below_float32_decides(self):
        for better in (1, 2):
            x = np.log([[0.2, 0.4, 0.4]])
            x[0, better] += 1e-12
            [best] = beam_search_decode(mx.array(x, mx.float64), 1)
            assert best.labels == [better]
            [best] = beam_search_decode(mx.array(x, mx.float64), 1, with_logits=True)
            assert best.labels == [better]

    def test_scores_are_exact(self, rng):
        x = reference.log_softmax(rng.normal(size=(30, 5)))
        logits = x + rng.normal(size=(30, 1))
        for scores, with_logits in ((x, False), (logits, True)):
            scores = mx.array(scores, mx.float64)
            for labels, score in beam_search_decode(
                scores, 30, 4, nbest=4, with_logits=with_logits
            ):
                expected = -reference.ctc(x, labels, 0)[0]
                assert score == pytest.approx(expected, rel=1e-12)

    def test_value_above_zero_is_named(self):
        x = mx.array([[-1.0, 0.1]], mx.float64)
        with pytest.raises(ValueError, match=r"got 0\.1 in frame 0 of sequence 0"):
            beam_search_decode(x, 1)


def test_score_is_that_of_the_loss(rng):
    x = mx.array(random_log_probs(rng, 60, 8), mx.float64)
    [best] = beam_search_decode(x, 60, 5)
    with mx.stream(mx.cpu):
        loss = ctc_loss(x, best.labels, 60, len(best.labels), reduction="sum")
    assert best.score == pytest.approx(-loss.item(), rel=1e-12)


def test_other_threads_run_while_the_scores_are_checked():
    # One frame that stands for all: read for 0.1 s, but of little memory.
    scores = mx.broadcast_to(mx.full((1, 1, 10_000), -1.0), (100_000, 1, 10_000))
    mx.eval(scores)
    steps, done = [0], threading.Event()

    def count():
        while not done.is_set():
            steps[0] += 1
            time.sleep(0)

    thread = threading.Thread(target=count)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)  # no thread takes the lock that another holds
    try:
        thread.start()
        before = steps[0]
        _ext.check_log_probs(scores, [100_000], 0.0)
        during = steps[0] - before
    finally:
        sys.setswitchinterval(interval)
        done.set()
        thread.join()
    assert during > 10
