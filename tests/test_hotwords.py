# What hotwords add: the bonus of every occurrence, no more and no less.

import math
from itertools import product

import mlx.core as mx
import numpy as np
import pytest
import reference

from mlx_ctc import beam_search_decode


def random_log_probs(rng, T, C):
    return reference.log_softmax(2 * rng.normal(size=(T, C))).astype(np.float32)


def occurrences(labels, word):
    return sum(
        tuple(labels[i : i + len(word)]) == word
        for i in range(len(labels) - len(word) + 1)
    )


def bonus_of(labels, hotwords):
    return sum(occurrences(labels, word) * bonus for word, bonus in hotwords.items())


SETS = [
    {(1,): 1.5},
    {(1, 2): 2.0},
    {(1, 2, 1): 3.0, (2, 1): 0.5},  # one ends another
    {(1, 2): 1.0, (1, 2, 2): 2.5},  # one begins another
    {(1, 1): 0.7, (1, 1, 1): 0.9},  # overlaps with itself
    {(2, 1, 2, 1): 4.0, (1, 2, 2): 1.0, (2,): -0.5},
    {(1, 2): -3.0, (2, 2, 1): -0.25},
]


@pytest.mark.parametrize("hotwords", SETS, ids=repr)
@pytest.mark.parametrize("rescore", [False, True])
def test_every_occurrence_has_its_bonus(rng, hotwords, rescore):
    T, C = 6, 3
    for _ in range(3):
        x = random_log_probs(rng, T, C)
        found = beam_search_decode(
            mx.array(x), T, 10_000, nbest=10_000, hotwords=hotwords, rescore=rescore
        )
        expected = {
            labels: bonus_of(labels, hotwords) - reference.ctc(x, labels)[0]
            for size in range(T + 1)
            for labels in product(range(1, C), repeat=size)
        }
        expected = {k: v for k, v in expected.items() if v > -math.inf}
        assert {tuple(labels) for labels, _ in found} == set(expected)
        for labels, score in found:
            assert score == pytest.approx(expected[tuple(labels)], rel=1e-9, abs=1e-9)
        scores = [score for _, score in found]
        assert scores == sorted(scores, reverse=True)


def plain_bonuses(hotwords):
    """The same as a scorer, which has the bonus at the last label."""

    def scorer(prefix, label):
        if label is None:
            return 0.0
        whole = (*prefix, label)
        ends = (word for word in hotwords if whole[-len(word) :] == word)
        return sum(hotwords[word] for word in ends)

    return scorer


@pytest.mark.parametrize("hotwords", SETS, ids=repr)
def test_a_wide_beam_finds_what_a_scorer_does(rng, hotwords):
    x = mx.array(random_log_probs(rng, 7, 4))
    options = {"beam_width": 10_000, "nbest": 50}
    found = beam_search_decode(x, 7, **options, hotwords=hotwords)
    expected = beam_search_decode(x, 7, **options, scorer=plain_bonuses(hotwords))
    assert [labels for labels, _ in found] == [labels for labels, _ in expected]
    for (_, score), (_, other) in zip(found, expected, strict=True):
        assert score == pytest.approx(other, rel=1e-12, abs=1e-12)


def test_is_found_in_a_narrow_beam():
    # The hotword's letters are the second best of each frame.
    probs = np.full((8, 5), 0.02)
    probs[::2, 0] = 0.94
    probs[1::2, 1:] = [[0.04, 0.6, 0.32, 0.04]]
    x = mx.log(mx.array(probs / probs.sum(axis=1, keepdims=True)))
    word = (3, 3, 3, 3)
    [plain] = beam_search_decode(x, 8, 3)
    assert plain.labels == [2, 2, 2, 2]
    [best] = beam_search_decode(x, 8, 3, hotwords={word: 4.0})
    assert best.labels == list(word)
    # With the bonus at the last label, the beam has lost the word by then.
    [late] = beam_search_decode(x, 8, 3, scorer=plain_bonuses({word: 4.0}))
    assert late.labels == [2, 2, 2, 2]


def test_does_not_change_what_has_none_of_it(rng):
    x = mx.array(random_log_probs(rng, 40, 12))
    expected = beam_search_decode(x, 40, 20, nbest=5)
    for hotwords in ({}, None, {(3,) * 41: 1.0}):
        assert beam_search_decode(x, 40, 20, nbest=5, hotwords=hotwords) == expected


def test_adds_to_a_scorer(rng):
    x = random_log_probs(rng, 5, 3)
    hotwords = {(1, 2): 1.0}
    for labels, score in beam_search_decode(
        mx.array(x),
        5,
        1000,
        nbest=1000,
        hotwords=hotwords,
        scorer=lambda _, label: -0.1 if label else 0.25,
    ):
        bonus = bonus_of(labels, hotwords) - 0.1 * len(labels) + 0.25
        assert score == pytest.approx(bonus - reference.ctc(x, labels)[0], rel=1e-9)


@pytest.mark.parametrize("width", [2, 5])
def test_pruned_labels_are_those_that_cannot_enter_the_beam(rng, width):
    # A scorer's labels are all tried.
    for _ in range(20):
        x = mx.array(random_log_probs(rng, 15, 40))
        words = {tuple(rng.integers(1, 40, 2).tolist()): 3.0 for _ in range(30)}
        words |= {(c,): 0.5 for c in range(1, 40, 3)}
        options = {"nbest": width, "rescore": False, "hotwords": words}
        found = beam_search_decode(x, 15, width, **options)
        assert found == beam_search_decode(
            x, 15, width, scorer=lambda prefix, label: 0.0, **options
        )


@pytest.mark.parametrize(
    ("hotwords", "says"),
    [
        ({(): 1.0}, r"without the blank 0, but got \(\)"),
        ({(1, 0): 1.0}, r"without the blank 0, but got \(1, 0\)"),
        ({(1, 4): 1.0}, r"labels in \[0, 4\), .* but got \(1, 4\)"),
        ({(-1,): 1.0}, r"but got \(-1,\)"),
        ({"ab": 1.0}, r"but got 'ab'"),
        ({(1,): math.nan}, r"a finite bonus of hotword \(1,\) but got nan"),
        ({(1,): math.inf}, r"a finite bonus of hotword \(1,\) but got inf"),
        ({(1,): 10**400}, r"a finite bonus of hotword \(1,\) but got 1000"),
        ({(1,): "3"}, r"a finite bonus of hotword \(1,\) but got '3'"),
        ({(1,): None}, r"a finite bonus of hotword \(1,\) but got None"),
        ({1: 3.0}, r"without the blank 0, but got 1"),
        ([(1, 2)], r"hotwords as a dict of labels and bonuses but got \[\(1, 2\)\]"),
    ],
)
def test_refusals(hotwords, says):
    with pytest.raises(ValueError, match=r"^\[beam_search_decode\] .*" + says):
        beam_search_decode(mx.zeros((3, 4)), 3, hotwords=hotwords)
