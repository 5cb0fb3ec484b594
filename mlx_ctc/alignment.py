"""Forced alignment, its spans, and posteriors."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

import mlx.core as mx

from mlx_ctc import _ext
from mlx_ctc._arguments import fail, read_batch, read_star
from mlx_ctc._softmax import log_softmax

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlx_ctc._arguments import Integers, Scores


def forced_align(
    log_probs: Scores,
    targets: Integers,
    input_lengths: Integers | None = None,
    target_lengths: Integers | None = None,
    blank: int = 0,
    *,
    with_logits: bool = False,
    star: float | None = None,
    batch_first: bool = False,
    stream: mx.Stream | mx.Device | mx.DeviceType | None = None,
) -> tuple[mx.array, mx.array]:
    """The most probable alignment of each target with its frames.

    Like ``torchaudio.functional.forced_align``, for a whole batch. The arguments take
    the same forms as those of :func:`ctc_loss`.

    Args:
        log_probs (array): Log-probabilities, ``(T, N, C)`` or ``(T, C)``.
        targets (array): Labels in ``[0, C)``, ``(N, S)``, ``(sum(target_lengths),)``,
            ``(S,)`` or a list of N lists.
        input_lengths (array, optional): Frames of each sequence, ``(N,)``, one int for
            all or a mask. Default: ``None``, all T.
        target_lengths (array, optional): Labels of each target, ``(N,)``, one int for
            all or a mask. Default: ``None``, those before the padding.
        blank (int, optional): The class that means "no label". Negative values count
            from the last class. Default: ``0``.
        with_logits (bool, optional): ``log_probs`` are unnormalised logits. The
            returned scores are log-probabilities in either case. Default: ``False``.
        star (float, optional): Makes ``C``, the number of classes, a label that stands
            for any text: it matches one frame or more, whatever is in them, each with
            this log-probability, 0 or less. Default: ``None``, no such label.
        batch_first (bool, optional): ``log_probs`` are ``(N, T, C)``. The results have
            N first in either case. Default: ``False``.
        stream (Stream or Device, optional): Where to compute. Default: ``None``, the
            default stream.

    Returns:
        tuple(array, array): The class of every frame ``(N, T)``, int32, and the
        log-probability of that class in that frame ``(N, T)``, float32 (float64 for
        float64 input); both ``(T,)`` for a single sequence. Frames past a sequence's
        length have the blank and a score of 0.

    Raises:
        ValueError: As :func:`ctc_loss`, and for a target that contains the blank or
            needs more frames than its sequence has. On a GPU also if half a byte for
            each frame and label is more than ``mx.get_memory_limit()``.
        RuntimeError: At evaluation on the CPU, if there is not enough memory. Ten hours
            of speech (1 800 000 frames, 150 000 labels) need 435 MB.

    Note:
        Sequences for which no path is found have the blank in every frame. Their scores
        are NaN if a label or length is out of range or the target contains the blank
        (where the values are not known at the call, see :func:`ctc_loss`), or if a
        score that the target uses is NaN or ``+inf``. They are ``-inf`` if the target
        needs more frames than there are, or if every path has a class of probability 0.

        With ``star=0.0``, as in torchaudio, a star costs nothing and takes every frame
        that it can: its neighbours keep the one that they need. With -0.5 or -1 it
        takes the frames that the text explains badly. ``log_probs`` are copied, with a
        column for the star.

        Log-probabilities are added as integers, in units of 2**-32 nats. The sums are
        exact for any number of frames, and every device finds the same path. Ties are
        broken from the last frame to the first: the path ends in a label rather than in
        a blank; going back, it prefers to stay in the same state, then to come from the
        state before, then to skip a blank. A path below -5e8 nats counts as impossible.

    Examples:
        >>> import mlx.core as mx
        >>> from mlx_ctc import forced_align, merge_tokens
        >>>
        >>> probs = mx.array([[0.1, 0.8, 0.1], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7]])
        >>> path, scores = forced_align(mx.log(probs), [1, 2], 3, 2)
        >>> path
        array([1, 1, 2], dtype=int32)
        >>> merge_tokens(path, mx.exp(scores))[1]
        TokenSpan(token=2, start=2, end=3, score=0.699999988079071)

        The star, here label 3, for an unknown beginning:

        >>> path, scores = forced_align(mx.log(probs), [3, 2], 3, 2, star=-0.5)
        >>> path
        array([3, 3, 2], dtype=int32)
    """
    with mx.stream(stream) if stream is not None else nullcontext():
        batch = read_batch(
            "forced_align",
            log_probs,
            targets,
            input_lengths,
            target_lengths,
            blank,
            batch_first,
            for_alignment=True,
            with_star=star is not None,
        )
        if star is not None:
            of_star = read_star("forced_align", star)
            appended = append_star(batch.log_probs, of_star, with_logits)
            batch = batch._replace(log_probs=appended)
            with_logits = False
        path, scores = _ext.forced_align(*batch, with_logits=with_logits)
        return (path, scores) if log_probs.ndim == 3 else (path[0], scores[0])


def append_star(scores: mx.array, star: float, with_logits: bool) -> mx.array:
    """Log-probabilities (T, N, C + 1) of scores (T, N, C), with the star's as last."""
    if scores.dtype != mx.float64:
        scores = scores.astype(mx.float32)
    if with_logits:
        scores = log_softmax(scores)
    column = mx.full((*scores.shape[:2], 1), star, scores.dtype)
    return mx.concatenate([scores, column], axis=2)


def ctc_posteriors(
    log_probs: Scores,
    targets: Integers,
    input_lengths: Integers | None = None,
    target_lengths: Integers | None = None,
    blank: int = 0,
    *,
    by_class: bool = False,
    with_logits: bool = False,
    batch_first: bool = False,
    stream: mx.Stream | mx.Device | mx.DeviceType | None = None,
) -> mx.array:
    """The posterior probability of each label of the target in each frame.

    The occupation probabilities gamma of the forward-backward algorithm, summed over
    all alignments (Graves et al. 2006, section 4.1). They measure how certain an
    alignment is. The arguments take the same forms as those of :func:`ctc_loss`.

    Args:
        log_probs (array): Log-probabilities, ``(T, N, C)`` or ``(T, C)``.
        targets (array): Labels in ``[0, C)``, ``(N, S)``, ``(sum(target_lengths),)``,
            ``(S,)`` or a list of N lists.
        input_lengths (array, optional): Frames of each sequence, ``(N,)``, one int for
            all or a mask. Default: ``None``, all T.
        target_lengths (array, optional): Labels of each target, ``(N,)``, one int for
            all or a mask. Default: ``None``, those before the padding.
        blank (int, optional): The class that means "no label". Negative values count
            from the last class. Default: ``0``.
        by_class (bool, optional): Sum over the labels of each class.
            Default: ``False``.
        with_logits (bool, optional): ``log_probs`` are unnormalised logits.
            Default: ``False``.
        batch_first (bool, optional): ``log_probs`` are ``(N, T, C)``. The results have
            N first in either case. Default: ``False``.
        stream (Stream or Device, optional): Where to compute. Default: ``None``, the
            default stream.

    Returns:
        array: ``(N, T, S + 1)`` in float32 (float64 for float64 input): entry 0 is that
        of the blank, entry ``s + 1`` that of label ``s`` of the target. With
        ``by_class`` ``(N, T, C)``. Without N for a single sequence. The rows sum to 1;
        rows past a sequence's length, and all rows of a target without an alignment,
        are 0. For concatenated targets, S is the largest target length if the lengths
        are known at the call, else ``min(sum(target_lengths), T + 1)``, because a
        longer target has no alignment.

    Raises:
        ValueError: As :func:`ctc_loss`.

    Note:
        A sequence has NaN in all T frames if a label or length that was not known at
        the call is out of range, and NaN in its own frames if a score that it uses is
        NaN or ``+inf``.

    Examples:
        >>> import mlx.core as mx
        >>> from mlx_ctc import ctc_posteriors
        >>>
        >>> probs = mx.array([[0.1, 0.9], [0.5, 0.5]])
        >>> ctc_posteriors(mx.log(probs), [1], 2, 1)
        array([[0.0526316, 0.947368],
               [0.473684, 0.526316]], dtype=float32)
    """
    with mx.stream(stream) if stream is not None else nullcontext():
        batch = read_batch(
            "ctc_posteriors",
            log_probs,
            targets,
            input_lengths,
            target_lengths,
            blank,
            batch_first,
        )
        posteriors = _ext.ctc_posteriors(
            *batch, with_logits=with_logits, by_class=by_class
        )
        return posteriors if log_probs.ndim == 3 else posteriors[0]


class Span:
    """Frames ``[start, end)``; ``len()`` is their number."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def seconds(self, frame_duration: float) -> tuple[float, float]:
        """Start and end of the span in seconds.

        Args:
            frame_duration (float): Seconds per frame: the duration of the recording
                divided by its number of frames, ``input_length``.
        """
        return self.start * frame_duration, self.end * frame_duration


@dataclass(frozen=True)
class TokenSpan(Span):
    """A token and its frames ``[start, end)``; ``len()`` is their number.

    ``score`` is the mean score of the frames and ``least`` the least, NaN if it is not
    known.
    """

    token: int
    start: int
    end: int
    score: float
    least: float = field(default=math.nan, repr=False, compare=False)


def shape(values: Scores | Sequence[Any]) -> tuple[int, ...]:
    return getattr(values, "shape", (len(values),))


def as_list(values: Scores | Sequence[Any]) -> list[Any]:
    listed = values if isinstance(values, list | tuple) else cast(Any, values).tolist()
    return list(listed)


def merge_tokens(
    tokens: Scores | Sequence[int], scores: Scores | Sequence[float], blank: int = 0
) -> list[TokenSpan]:
    """Merges equal neighbouring tokens of one alignment into spans, without blanks.

    Like ``torchaudio.functional.merge_tokens``.

    Args:
        tokens (array): The class of every frame, ``(T,)``.
        scores (array): The score of every frame, ``(T,)``; a span has their mean.
        blank (int, optional): The class that means "no label". Negative values are
            refused, because the number of classes is not known here: pass ``C - 1`` for
            the last class. Default: ``0``.

    Returns:
        list(TokenSpan): In order.

    Raises:
        ValueError: If tokens and scores differ in shape or are not one-dimensional,
            and for a negative blank.
    """
    if blank < 0:
        fail(
            "merge_tokens",
            "blank of 0 or more (C - 1 for the last of C classes)",
            blank,
        )
    if not shape(tokens) == shape(scores) == (len(tokens),):
        fail(
            "merge_tokens",
            "tokens and scores of shape (T,)",
            f"{shape(tokens)} and {shape(scores)}",
        )
    values: list[float] = as_list(scores)
    spans: list[TokenSpan] = []
    start = 0
    for token, frames in groupby(as_list(tokens)):
        end = start + sum(1 for _ in frames)
        if token != blank:
            score = sum(values[start:end]) / (end - start)
            spans.append(TokenSpan(token, start, end, score, min(values[start:end])))
        start = end
    return spans
