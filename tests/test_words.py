# Words and segments: which labels make one, when it is said, and how sure that is.

import re

import mlx.core as mx
import numpy as np
import pytest

from mlx_ctc import (
    TextSpan,
    TokenSpan,
    forced_align,
    merge_segments,
    merge_tokens,
    merge_words,
)

CHARACTERS = ["", "|", "a", "b", "c"]


def spans_of(path, scores=None):
    """The spans of a path, with blanks as 0."""
    return merge_tokens(path, scores or [0.5] * len(path))


def said(words):
    return [(word.text, word.start, word.end) for word in words]


class TestWords:
    def test_of_characters_end_at_the_separator(self):
        #                  a  b        |     c     |  |  b
        spans = spans_of([2, 3, 3, 0, 1, 1, 4, 0, 1, 0, 1, 3, 0])
        words = merge_words(spans, CHARACTERS, separator="|")
        assert said(words) == [("ab", 0, 3), ("c", 6, 7), ("b", 11, 12)]

    def test_separators_at_the_ends_are_no_words(self):
        words = merge_words(spans_of([1, 2, 1]), CHARACTERS, separator="|")
        assert said(words) == [("a", 1, 2)]
        assert merge_words(spans_of([1]), CHARACTERS, separator="|") == []

    @pytest.mark.parametrize(
        ("pieces", "words"),
        [
            (["▁the", "▁cat"], ["the", "cat"]),
            (["▁un", "believ", "able", "▁!"], ["unbelievable", "!"]),
            (["▁", "the", "▁", "▁cat"], ["the", "cat"]),
            (["cut", "▁off"], ["cut", "off"]),
        ],
    )
    def test_of_sentence_pieces_begin_with_the_mark(self, pieces, words):
        spans = spans_of(list(range(1, len(pieces) + 1)))
        found = merge_words(spans, ["", *pieces], begin="▁")
        assert [word.text for word in found] == words

    def test_of_word_pieces_go_on_with_the_mark(self):
        alphabet = {7: "un", 8: "##believ", 9: "##able", 5: "cats"}
        found = merge_words(spans_of([7, 8, 0, 9, 5]), alphabet, continuation="##")
        assert said(found) == [("unbelievable", 0, 4), ("cats", 4, 5)]

    def test_may_be_counted(self):
        spans = spans_of([2, 3, 0, 4, 2])
        for counts in ([1, 2, 1], np.array([1, 2, 1])):
            words = merge_words(spans, CHARACTERS, counts=counts)
            assert said(words) == [("a", 0, 1), ("bc", 1, 4), ("a", 4, 5)]

    def test_score_is_the_mean_of_the_labels_frames(self):
        path, scores = [2, 2, 2, 0, 3, 1, 4], [0.9, 0.3, 0.6, 0.1, 0.8, 0.2, 0.7]
        first, second = merge_words(
            spans_of(path, scores), CHARACTERS, separator="|", close_gaps=True
        )
        assert first.score == pytest.approx((0.9 + 0.3 + 0.6 + 0.8) / 4)
        assert first.least == 0.3
        assert (second.score, second.least) == (0.7, 0.7)

    def test_least_of_spans_made_by_hand_is_that_of_their_scores(self):
        spans = [TokenSpan(2, 0, 2, 0.5), TokenSpan(3, 2, 3, 0.25)]
        [word] = merge_words(spans, CHARACTERS, counts=[2])
        assert word.least == 0.25

    def test_gaps_go_to_the_word_before(self):
        spans = spans_of([0, 2, 0, 1, 0, 3, 0, 0, 1, 4, 0])
        words = merge_words(spans, CHARACTERS, separator="|", close_gaps=True)
        assert said(words) == [("a", 1, 5), ("b", 5, 9), ("c", 9, 10)]
        assert [len(word) for word in words] == [4, 4, 1]
        assert [part.token for word in words for part in word.parts] == [2, 3, 4]

    def test_seconds(self):
        word = TextSpan("a", 3, 5, 1.0, 1.0, ())
        assert word.seconds(0.02) == (0.06, 0.1)

    def test_of_nothing_there_are_none(self):
        for way in ({"separator": "|"}, {"begin": "▁"}, {"counts": []}):
            assert merge_words([], CHARACTERS, **way, close_gaps=True) == []
        assert merge_segments([], 3) == []

    @pytest.mark.parametrize(
        ("ways", "says"),
        [
            ({}, "one of separator, begin, continuation and counts but got none"),
            ({"separator": "|", "begin": "▁"}, "but got none or several"),
            ({"counts": [1, 2]}, "that sum to 2 spans but got [1, 2]"),
            ({"counts": [2, 0]}, "counts of 1 or more that sum to 2 spans but got"),
        ],
    )
    def test_refusals(self, ways, says):
        with pytest.raises(ValueError, match=r"^\[merge_words\] .*" + re.escape(says)):
            merge_words(spans_of([2, 3]), CHARACTERS, **ways)

    @pytest.mark.parametrize(
        ("way", "path", "words"),
        [
            ({"separator": "|"}, [5, 1, 2, 3, 1, 5], ["*", "ab", "*"]),
            ({"separator": "|"}, [2, 5, 3, 1, 4], ["a", "*", "b", "c"]),
            ({"begin": "b"}, [5, 2, 3, 4, 5, 2], ["*", "a", "c", "*", "a"]),
            ({"continuation": "b"}, [2, 3, 5, 3, 4], ["a", "*", "", "c"]),
            ({"counts": [2, 1]}, [5, 2, 3, 5, 4, 5], ["*", "ab", "*", "c", "*"]),
        ],
    )
    def test_star_is_a_word_of_its_own(self, way, path, words):
        found = merge_words(spans_of(path), CHARACTERS, star=5, **way)
        assert [word.text for word in found] == [text for text in words if text]
        for word in found:
            is_star = word.text == "*"
            assert [part.token == 5 for part in word.parts] == [is_star] * len(
                word.parts
            )

    def test_star_has_another_text_or_is_left_out(self):
        spans = spans_of([2, 3, 1, 5, 5, 1, 4])
        for star_text, words in (
            ("...", [("ab", 0, 2), ("...", 3, 5), ("c", 6, 7)]),
            ("", [("ab", 0, 2), ("c", 6, 7)]),
        ):
            found = merge_words(
                spans, CHARACTERS, separator="|", star=5, star_text=star_text
            )
            assert said(found) == words

    @pytest.mark.parametrize(
        ("path", "alphabet", "says"),
        [
            (
                [2, 5],
                CHARACTERS,
                "spans[1].token in [0, 5), the classes of the alphabet, but got 5. "
                "For forced_align's star pass star=5.",
            ),
            ([-2, 2], CHARACTERS, "spans[0].token in [0, 5), the classes of the"),
            ([2, 9], {2: "a"}, "spans[1].token in the alphabet's keys but got 9."),
        ],
    )
    def test_of_labels_that_have_no_name_there_are_none(self, path, alphabet, says):
        with pytest.raises(ValueError, match=r"^\[merge_words\] .*" + re.escape(says)):
            merge_words(spans_of(path), alphabet, counts=[1, 1])

    def test_span_has_a_frame(self):
        spans = [TokenSpan(2, 0, 1, 0.5), TokenSpan(3, 4, 4, 0.5)]
        says = "[merge_words] Expected spans[1] of one frame or more but got [4, 4)"
        with pytest.raises(ValueError, match=re.escape(says)):
            merge_words(spans, CHARACTERS, separator="|")

    def test_separator_is_a_name(self):
        says = "[merge_words] Expected separator as a name of the alphabet but got ' '"
        for alphabet in (CHARACTERS, dict(enumerate(CHARACTERS))):
            with pytest.raises(ValueError, match=re.escape(says)):
                merge_words(spans_of([2, 1, 3]), alphabet, separator=" ")

    @pytest.mark.parametrize("way", ["separator", "begin", "continuation"])
    def test_mark_has_a_character(self, way):
        says = f"[merge_words] Expected {way} of a character or more but got ''"
        with pytest.raises(ValueError, match=re.escape(says)):
            merge_words(spans_of([2, 1, 3]), CHARACTERS, **{way: ""})

    def test_of_an_alignment(self, rng):
        text = "ab|c|ba"
        labels = [CHARACTERS.index(letter) for letter in text]
        path = [c for label in labels for c in (label, label, 0)]
        logits = rng.normal(size=(len(path), 5)).astype(np.float32)
        logits[np.arange(len(path)), path] += 9
        aligned, scores = forced_align(
            mx.array(logits), labels, len(path), len(labels), with_logits=True
        )
        spans = merge_tokens(aligned, mx.exp(scores))
        words = merge_words(spans, CHARACTERS, separator="|")
        assert said(words) == [("ab", 0, 5), ("c", 9, 11), ("ba", 15, 20)]
        probabilities = np.exp(np.array(scores))
        used = np.array(path[:5]) != 0
        assert words[0].score == pytest.approx(probabilities[:5][used].mean())
        assert words[0].least == pytest.approx(probabilities[:5][used].min())


class TestSegments:
    @staticmethod
    def spoken(*times):
        spans = [TokenSpan(2, *t, 0.5) for t in times]
        return merge_words(spans, CHARACTERS, counts=[1] * len(spans))

    def test_end_at_a_long_gap(self):
        words = self.spoken((0, 2), (4, 6), (9, 10))
        assert said(merge_segments(words, 2)) == [("a a", 0, 6), ("a", 9, 10)]
        assert said(merge_segments(words, 3)) == [("a a a", 0, 10)]
        assert said(merge_segments(words, 0)) == said(words)

    def test_are_no_longer_than_asked(self):
        words = self.spoken((0, 2), (2, 4), (4, 9), (9, 10))
        found = merge_segments(words, 9, longest=4, joint="")
        assert said(found) == [("aa", 0, 4), ("a", 4, 9), ("a", 9, 10)]

    def test_have_the_mean_of_all_frames_and_the_least(self):
        spans = [TokenSpan(2, 0, 3, 0.9, 0.6), TokenSpan(3, 3, 4, 0.5, 0.5)]
        words = merge_words(spans, CHARACTERS, counts=[1, 1])
        [segment] = merge_segments(words, 1)
        assert segment.score == pytest.approx((3 * 0.9 + 0.5) / 4)
        assert segment.least == 0.5
        assert segment.parts == tuple(words)
