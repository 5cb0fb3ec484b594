"""Which frame said which label: the best alignment and its spans, and posteriors."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import mlx.core as mx

from mlx_ctc import _ext
from mlx_ctc._forms import Canonical

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlx_ctc._forms import Integers, Scores


def forced_align(
    log_probs: Scores,
    targets: Integers,
    input_lengths: Integers,
    target_lengths: Integers,
    blank: int = 0,
    *,
    with_logits: bool = False,
    stream: mx.Stream | mx.Device | None = None,
) -> tuple[mx.array, mx.array]:
    """The most probable alignment of each target with its frames.

    ``torchaudio.functional.forced_align`` for a whole batch. The arguments are those
    of :func:`ctc_loss`, in all their forms: ``log_probs`` has its frames first.

    Args:
        log_probs (array): Log-probabilities, ``(T, N, C)`` or ``(T, C)``.
        targets (array): Labels in ``[0, C)``, ``(N, S)``, ``(sum(target_lengths),)`` or
            ``(S,)``.
        input_lengths (array): Frames of each sequence, ``(N,)`` or one int for all.
        target_lengths (array): Labels of each target, ``(N,)`` or one int for all.
        blank (int, optional): The class that means "no label". A negative one counts
            from the last class. Default: ``0``.
        with_logits (bool, optional): ``log_probs`` are unnormalised logits. They have
            the same alignment, and log-softmax is applied to the scores.
            Default: ``False``.
        stream (Stream or Device, optional): Where to compute. Default: ``None``, the
            default stream.

    Returns:
        tuple(array, array): The class of every frame ``(N, T)``, int32, and the
        log-probability of that class in that frame ``(N, T)``, float32 (float64 for
        float64 input); both ``(T,)`` for a single sequence. Frames past a sequence's
        length have the blank and a score of 0.

    Raises:
        ValueError: As :func:`ctc_loss`, and for a target that contains the blank or
            needs more frames than its sequence has.
        RuntimeError: At evaluation on the CPU, for an alignment that needs more memory
            than there is: half a byte for each frame and label.

    Note:
        Where the values are not known at the call, as :func:`ctc_loss` says, a sequence
        with a label or a length out of range, or with the blank in its target, gets
        blanks with scores of NaN, and one whose target does not fit gets blanks with
        scores of ``-inf``. So does one whose every alignment meets a class of
        probability 0; one that uses a NaN or ``+inf`` gets blanks with scores of NaN.

        Log-probabilities are added up as integers, in units of 2**-32 nats. Nothing is
        rounded however many frames there are, and every device finds the same path.
        Between equally good paths it is settled from the last frame, which is a label's
        rather than a blank's, back to the first: a frame is rather in the same state as
        the one before it than in the next, and rather in the next than past a blank. A
        path below -5e8 nats counts as impossible.

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
    """
    with mx.stream(stream) if stream is not None else nullcontext():
        batch = Canonical("forced_align").batch(
            log_probs, targets, input_lengths, target_lengths, blank, for_alignment=True
        )
        path, scores = _ext.forced_align(*batch, with_logits=with_logits)
        return (path, scores) if log_probs.ndim == 3 else (path[0], scores[0])


def ctc_posteriors(
    log_probs: Scores,
    targets: Integers,
    input_lengths: Integers,
    target_lengths: Integers,
    blank: int = 0,
    *,
    by_class: bool = False,
    with_logits: bool = False,
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array:
    r"""How probable it is, given the target, that a frame says each of its labels.

    The occupation probabilities :math:`\gamma` of the forward-backward algorithm,
    summed over all alignments: Graves et al. 2006, section 4.1. An alignment says which
    label a frame has, these say how sure that is. The arguments are those of
    :func:`ctc_loss`, in all their forms.

    Args:
        log_probs (array): Log-probabilities, ``(T, N, C)`` or ``(T, C)``.
        targets (array): Labels in ``[0, C)``, ``(N, S)``, ``(sum(target_lengths),)`` or
            ``(S,)``.
        input_lengths (array): Frames of each sequence, ``(N,)`` or one int for all.
        target_lengths (array): Labels of each target, ``(N,)`` or one int for all.
        blank (int, optional): The class that means "no label". A negative one counts
            from the last class. Default: ``0``.
        by_class (bool, optional): Add up the labels of each class. Default: ``False``.
        with_logits (bool, optional): ``log_probs`` are unnormalised logits.
            Default: ``False``.
        stream (Stream or Device, optional): Where to compute. Default: ``None``, the
            default stream.

    Returns:
        array: ``(N, T, S + 1)`` in float32 (float64 for float64 input): entry 0 is the
        blank's, entry ``s + 1`` that of the target's label ``s``. With ``by_class``
        ``(N, T, C)``. Without N for a single sequence. The rows of a sequence's frames
        sum to 1; they are 0 past its length, and for a target without an alignment.
        Of concatenated targets S is the greatest target length where the lengths are
        known at the call; where they are not, ``min(sum(target_lengths), T + 1)``,
        since a longer target has no alignment.

    Raises:
        ValueError: As :func:`ctc_loss`.

    Note:
        A sequence with a label or a length out of range that was not known at the call
        gets NaN in all T frames; one that uses a NaN or ``+inf`` gets NaN in its own.

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
        batch = Canonical("ctc_posteriors").batch(
            log_probs, targets, input_lengths, target_lengths, blank
        )
        posteriors = _ext.ctc_posteriors(
            *batch, with_logits=with_logits, by_class=by_class
        )
        return posteriors if log_probs.ndim == 3 else posteriors[0]


@dataclass(frozen=True)
class TokenSpan:
    """A token and the frames ``[start, end)`` that say it; ``len()`` counts them."""

    token: int
    start: int
    end: int
    score: float

    def __len__(self) -> int:
        return self.end - self.start

    def seconds(self, frame_duration: float) -> tuple[float, float]:
        """Where the span starts and ends in time.

        Args:
            frame_duration (float): Seconds from one frame to the next: those of the
                recording divided by its number of frames, ``input_length``.
        """
        return self.start * frame_duration, self.end * frame_duration


def shape(values: Scores | Sequence) -> tuple[int, ...]:
    return getattr(values, "shape", (len(values),))


def merge_tokens(
    tokens: Scores | Sequence[int], scores: Scores | Sequence[float], blank: int = 0
) -> list[TokenSpan]:
    """The spans of equal tokens in one alignment, without blanks.

    ``torchaudio.functional.merge_tokens``.

    Args:
        tokens (array): The class of every frame, ``(T,)``.
        scores (array): A score for every frame, ``(T,)``; a span gets their mean.
        blank (int, optional): The class that means "no label". It does not count from
            the end, since the number of classes is not known here: pass ``C - 1`` for
            the last class. Default: ``0``.

    Returns:
        list(TokenSpan): In order.

    Raises:
        ValueError: For tokens and scores that are not one for each frame, and for a
            negative blank.
    """
    if blank < 0:
        Canonical("merge_tokens").fail(
            "blank of 0 or more (C - 1 for the last of C classes)", blank
        )
    if not shape(tokens) == shape(scores) == (len(tokens),):
        Canonical("merge_tokens").fail(
            "tokens and scores of shape (T,)", f"{shape(tokens)} and {shape(scores)}"
        )
    tokens, scores = (
        x if isinstance(x, list | tuple) else x.tolist() for x in (tokens, scores)
    )
    spans, start = [], 0
    for token, frames in groupby(tokens):
        end = start + sum(1 for _ in frames)
        if token != blank:
            score = sum(scores[start:end]) / (end - start)
            spans.append(TokenSpan(token, start, end, score))
        start = end
    return spans
