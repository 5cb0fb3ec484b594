"""Words and segments of an alignment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from mlx_ctc._arguments import fail
from mlx_ctc.alignment import Span, TokenSpan

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class TextSpan(Span):
    """A word or a segment and its frames ``[start, end)``; ``len()`` is their number.

    Attributes:
        text (str): What is said.
        start (int): Its first frame.
        end (int): The frame after its last.
        score (float): The mean score of the frames of its labels; those of blanks and
            separators do not count.
        least (float): The least score of them.
        parts (tuple): A word's :class:`TokenSpan`, a segment's words.
    """

    text: str
    start: int
    end: int
    score: float
    least: float
    parts: tuple[TokenSpan | TextSpan, ...]


def merge_words(
    spans: Sequence[TokenSpan],
    alphabet: Sequence[str] | Mapping[int, str],
    *,
    separator: str | None = None,
    begin: str | None = None,
    continuation: str | None = None,
    counts: Sequence[int] | None = None,
    star: int | None = None,
    star_text: str = "*",
    close_gaps: bool = False,
) -> list[TextSpan]:
    """The words that aligned labels spell, with their frames and scores.

    One of the four ways to find where a word begins is given. A word without text is
    left out.

    Args:
        spans (list(TokenSpan)): The labels, from :func:`merge_tokens`.
        alphabet (list(str)): The name of each class.
        separator (str, optional): The name of the class between two words, such as
            ``" "`` or ``"|"``. It belongs to none.
        begin (str, optional): What the name of a word's first label begins with, such
            as SentencePiece's ``"▁"``, which is taken off.
        continuation (str, optional): What the names of a word's other labels begin
            with, such as WordPiece's ``"##"``, which is taken off.
        counts (list(int), optional): How many labels each word has, without the stars.
        star (int, optional): The label of :func:`forced_align`'s star, the number of
            classes. Each is a word of its own. Default: ``None``, no such label.
        star_text (str, optional): The text of a star. With ``""`` it is left out.
            Default: ``"*"``.
        close_gaps (bool, optional): Let each word last until the next begins.
            Default: ``False``.

    Returns:
        list(TextSpan): In order.

    Raises:
        ValueError: If not one of the four is given, or counts do not add up to the
            spans; for a label or a separator that the alphabet does not have.

    Examples:
        >>> from mlx_ctc import TokenSpan, merge_words
        >>>
        >>> alphabet = ["<blank>", "▁no", "w", "▁or", "▁never"]
        >>> tokens = [(1, 0, 2, 0.5), (2, 3, 4, 0.8), (3, 6, 8, 1.0)]
        >>> spans = [TokenSpan(*token) for token in tokens]
        >>> [(w.text, w.start, w.end) for w in merge_words(spans, alphabet, begin="▁")]
        [('now', 0, 4), ('or', 6, 8)]
    """
    for i, span in enumerate(spans):
        if span.end <= span.start:
            got = f"[{span.start}, {span.end})"
            fail("merge_words", f"spans[{i}] of one frame or more", got)
    is_star = [star is not None and span.token == star for span in spans]
    labels = [i for i in range(len(spans)) if not is_star[i]]
    names = [star_text] * len(spans)
    starts = [True] * len(spans)
    label_names = [name_of(i, spans[i].token, alphabet) for i in labels]
    ways = (separator, begin, continuation, counts)
    check_ways(*ways, alphabet)
    for i, name, is_first in zip(labels, *divided(label_names, *ways), strict=True):
        names[i] = name
        starts[i] = is_first or i == 0 or is_star[i - 1]

    firsts = [i for i, is_first in enumerate(starts) if is_first]
    words = []
    for first, end in pairwise([*firsts, len(spans)]):
        if text := "".join(names[first:end]):
            words.append(merged(text, spans[first:end]))
    return without_gaps(words) if close_gaps else words


def name_of(i: int, token: int, alphabet: Sequence[str] | Mapping[int, str]) -> str:
    """Of the class of span i. A negative one is not counted from the end."""
    C = len(alphabet)
    if isinstance(alphabet, Mapping):
        if token not in alphabet:
            fail("merge_words", f"spans[{i}].token in the alphabet's keys", token)
    elif not 0 <= token < C:
        wanted = f"spans[{i}].token in [0, {C}), the classes of the alphabet,"
        remedy = f". For forced_align's star pass star={C}" if token == C else ""
        fail("merge_words", wanted, f"{token}{remedy}")
    return alphabet[token]


def check_ways(
    separator: str | None,
    begin: str | None,
    continuation: str | None,
    counts: Sequence[int] | None,
    alphabet: Sequence[str] | Mapping[int, str],
) -> None:
    """One of the four ways is given, and can be meant."""
    marks = {"separator": separator, "begin": begin, "continuation": continuation}
    given = [way for way in (*marks.values(), counts) if way is not None]
    if len(given) != 1:
        wanted = "one of separator, begin, continuation and counts"
        fail("merge_words", wanted, "none or several")
    for way, mark in marks.items():
        if mark == "":
            fail("merge_words", f"{way} of a character or more", repr(mark))
    names = alphabet.values() if isinstance(alphabet, Mapping) else alphabet
    if separator is not None and separator not in names:
        fail("merge_words", "separator as a name of the alphabet", repr(separator))


def divided(
    names: list[str],
    separator: str | None,
    begin: str | None,
    continuation: str | None,
    counts: Sequence[int] | None,
) -> tuple[list[str], list[bool]]:
    """What labels of these names add to their word, and whether they begin one."""
    if separator is not None:
        starts = [
            i == 0 or separator in (name, names[i - 1]) for i, name in enumerate(names)
        ]
        return ["" if name == separator else name for name in names], starts
    if begin is not None:
        starts = [name.startswith(begin) for name in names]
        return [name.removeprefix(begin) for name in names], starts
    if continuation is not None:
        starts = [not name.startswith(continuation) for name in names]
        return [name.removeprefix(continuation) for name in names], starts
    counts = () if counts is None else counts
    return names, first_of_each(counts, len(names))


def first_of_each(counts: Sequence[int], total: int) -> list[bool]:
    """For ``total`` labels in groups of so many, whether each is a group's first."""
    if any(count < 1 for count in counts) or sum(counts) != total:
        wanted = f"counts of 1 or more that sum to {total} spans"
        fail("merge_words", wanted, list(counts))
    return [i == 0 for count in counts for i in range(count)]


def merged(text: str, parts: Sequence[TokenSpan | TextSpan]) -> TextSpan:
    tokens = [token for part in parts for token in tokens_of(part)]
    frames = sum(map(len, tokens))
    score = sum(len(token) * token.score for token in tokens) / frames
    least = min(least_of(token) for token in tokens)
    return TextSpan(text, parts[0].start, parts[-1].end, score, least, tuple(parts))


def tokens_of(part: TokenSpan | TextSpan) -> list[TokenSpan]:
    if isinstance(part, TokenSpan):
        return [part]
    return [token for inner in part.parts for token in tokens_of(inner)]


def least_of(token: TokenSpan) -> float:
    """Of a span that was not made by merge_tokens, its score."""
    return token.score if math.isnan(token.least) else token.least


def without_gaps(words: list[TextSpan]) -> list[TextSpan]:
    closed = [replace(word, end=after.start) for word, after in pairwise(words)]
    return closed + words[-1:]


def merge_segments(
    words: Sequence[TextSpan],
    longest_gap: int,
    longest: int | None = None,
    *,
    joint: str = " ",
) -> list[TextSpan]:
    """Words in segments, such as those of subtitles, divided where nothing is said.

    Args:
        words (list(TextSpan)): From :func:`merge_words`, without ``close_gaps``.
        longest_gap (int): The most frames between two words of a segment.
        longest (int, optional): The most frames of a segment, unless one word has more.
            Default: ``None``, any number.
        joint (str, optional): What stands between two words. Default: a space.

    Returns:
        list(TextSpan): In order.
    """
    groups: list[list[TextSpan]] = []
    for word in words:
        fits = (
            groups
            and word.start - groups[-1][-1].end <= longest_gap
            and (longest is None or word.end - groups[-1][0].start <= longest)
        )
        if fits:
            groups[-1].append(word)
        else:
            groups.append([word])
    return [merged(joint.join(word.text for word in group), group) for group in groups]
