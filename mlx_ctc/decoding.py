"""Greedy and beam search decoding."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, NamedTuple, cast

import mlx.core as mx

from mlx_ctc import _ext
from mlx_ctc._arguments import as_index, fail, read_frames, to_int32
from mlx_ctc._softmax import log_softmax, log_sum_exp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, SupportsIndex

    import numpy as np

    from mlx_ctc._arguments import Integers, Scores

    Scorer = Callable[[tuple[int, ...], int | None], float]
    PrefixScorer = Callable[[tuple[int, ...]], Scores | Sequence[float]]

INT32_MAX = 2**31 - 1

OP = "beam_search_decode"

# No log-probability is above 0, but for an error of rounding. Keep it equal to
# most_log_prob in csrc/lattice/best_path.h.
MOST = 1e-3


def greedy_decode(
    log_probs: Scores,
    input_lengths: Integers | None = None,
    blank: int = 0,
    *,
    with_frames: bool = False,
    with_logits: bool = False,
    batch_first: bool = False,
    stream: mx.Stream | mx.Device | mx.DeviceType | None = None,
) -> tuple[mx.array, ...]:
    """The labels of the most probable class in each frame.

    Equal classes side by side are one label, and blanks none. A frame's first class
    wins where several are equal. Part of MLX's graph, like any of its operations; but
    up to 256 KiB of evaluated scores are decoded at once, if MLX's default device is
    the CPU, no ``stream`` is given and ``input_lengths`` are one int or ``None``.

    Args:
        log_probs (array): Log-probabilities, ``(T, N, C)`` or ``(T, C)``.
        input_lengths (array, optional): Frames of each sequence, ``(N,)``, one int for
            all or a mask ``(N, T)``. Default: ``None``, all T.
        blank (int, optional): The class that means "no label". Default: ``0``.
        with_frames (bool, optional): Return also when each label begins and how
            probable it is. Default: ``False``.
        with_logits (bool, optional): ``log_probs`` are unnormalised logits. They have
            the same labels, and log-softmax is applied to the scores.
            Default: ``False``.
        batch_first (bool, optional): ``log_probs`` are ``(N, T, C)``. The results have
            N first in either case. Default: ``False``.
        stream (Stream or Device, optional): Where to compute. Default: ``None``, the
            default stream.

    Returns:
        tuple(array, array, array): The labels ``(N, T)``, int32, followed by blanks;
        how many they are ``(N,)``, int32; and the log-probability of their path
        ``(N,)``, float32 (float64 for float64 input). ``(T,)`` and two scalars for
        a single sequence. With ``with_frames`` two more: the first frame of each label
        ``(N, T)``, int32, and its mean probability in its frames ``(N, T)``, both
        followed by zeros.

        A sequence has no labels and a score of NaN if one of its frames has a NaN, a
        ``+inf`` or, without ``with_logits``, a value more than 1e-3 above 0, which is
        no log-probability; or if all logits of a frame are ``-inf``.

    Raises:
        ValueError: For wrong shapes and types, and for lengths out of range in anything
            but an ``mx.array``. Inside one, that sequence has no labels and a score of
            NaN.

    Examples:
        >>> import mlx.core as mx
        >>> from mlx_ctc import greedy_decode
        >>>
        >>> probs = mx.array([[0.1, 0.9], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]])
        >>> labels, length, score = greedy_decode(mx.log(probs), 4)
        >>> labels[: length.item()]
        array([1, 1], dtype=int32)
    """
    if stream is None and (
        results := at_once(log_probs, input_lengths, blank, with_logits, batch_first)
    ):
        return tuple(results if with_frames else results[:3])
    with mx.stream(stream) if stream is not None else nullcontext():
        log_probs, known_lengths, blank, is_batched = read_frames(
            "greedy_decode", log_probs, input_lengths, blank, batch_first
        )
        lengths = to_int32(known_lengths)
        on_cpu = mx.default_device() == mx.Device(mx.cpu)
        decode = _ext.greedy_decode if on_cpu else decode_in_ops
        results = decode(log_probs, lengths, blank, with_logits=with_logits)
        results = results[: 5 if with_frames else 3]
        if not is_batched:
            results = [mx.squeeze(result, 0) for result in results]
        return tuple(results)


def decode_no_frames(
    log_probs: mx.array, lengths: mx.array, blank: int
) -> list[mx.array]:
    """What decode_in_ops returns for no frames or no sequences.

    Apart, because MLX refuses to add to no rows, and because compiled operations on
    empty arrays end the process in MLX 0.32.4 on CUDA.
    """
    T, N, _ = log_probs.shape
    scores = mx.zeros((N,))
    if N > 0:
        scores = mx.where(lengths == 0, scores, mx.nan)
    return [
        mx.full((N, T), blank, mx.int32),
        mx.zeros((N,), mx.int32),
        scores,
        mx.zeros((N, T), mx.int32),
        mx.zeros((N, T)),
    ]


def at_once(
    log_probs: Scores,
    input_lengths: Integers | None,
    blank: int,
    with_logits: bool,
    batch_first: bool,
) -> list[mx.array] | None:
    """All results, for few known scores, and one int or none as their frames.

    In a tenth of the time that MLX takes to evaluate anything. Else nothing.
    """
    frames = 0 if input_lengths is None else input_lengths
    if not isinstance(log_probs, mx.array) or not is_int32(frames, blank):
        return None
    return _ext.greedy_decode_at_once(
        log_probs,
        cast("int | None", input_lengths),
        blank,
        with_logits=with_logits,
        batch_first=bool(batch_first),
    )


def is_int32(*values: object) -> bool:
    return all(type(v) is int and abs(v) <= INT32_MAX for v in values)


def decode_in_ops(
    log_probs: mx.array, lengths: mx.array, blank: int, *, with_logits: bool
) -> list[mx.array]:
    """What _ext.greedy_decode returns, in MLX's operations, for the GPU."""
    T, N, _ = log_probs.shape
    if T == 0 or N == 0:
        return decode_no_frames(log_probs, lengths, blank)
    in_range = (lengths >= 0) & (lengths <= T)
    used = in_range[:, None] & (mx.arange(T) < lengths[:, None])
    path, path_scores = best_path(log_probs, with_logits)
    score = mx.sum(mx.where(used, path_scores, 0), axis=1)
    score = mx.where(in_range, score, nan(score.dtype))

    in_label = used & ~mx.isnan(score)[:, None] & (path != blank)
    before = mx.concatenate([mx.full((N, 1), blank), path], axis=1)[:, :T]
    starts_label = (in_label & (path != before)).astype(mx.int32)
    # The position of each frame's label; all else goes past the last.
    position = mx.where(in_label, mx.cumsum(starts_label, axis=1) - 1, T)
    first = mx.where(starts_label == 1, position, T)

    def placed(values: mx.array, rest: int) -> mx.array:
        row = mx.full((N, T + 1), rest, values.dtype)
        return mx.put_along_axis(row, first, values, axis=1)[:, :T]

    def summed(values: mx.array) -> mx.array:
        row = mx.zeros((N, T + 1), values.dtype)
        return row.at[mx.arange(N)[:, None], position].add(values)[:, :T]

    durations = mx.maximum(summed(mx.ones((N, T), path_scores.dtype)), 1)
    return [
        placed(path, blank),
        mx.sum(starts_label, axis=1),
        score,
        placed(mx.broadcast_to(mx.arange(T), (N, T)), 0),
        summed(mx.exp(path_scores)) / durations,
    ]


def best_path(frames: mx.array, with_logits: bool) -> tuple[mx.array, mx.array]:
    """The best class of every frame (N, T), and its log-probability (N, T).

    NaN for a frame with a NaN or ``+inf``, or with what is no log-probability. Whether
    max propagates NaN is left open: a comparison finds it in any class.
    """
    if frames.dtype != mx.float64:
        frames = frames.astype(mx.float32)
    frames = frames.swapaxes(0, 1)
    if frames.size == 0:  # has no greatest
        N, T, _ = frames.shape
        return mx.zeros((N, T), mx.int32), mx.zeros((N, T), frames.dtype)
    scores = mx.max(frames, axis=-1)
    if with_logits:
        scores = scores - mx.squeeze(log_sum_exp(frames), -1)
        valid = frames < math.inf
    else:
        valid = frames <= MOST
    scores = mx.where(mx.all(valid, axis=-1), scores, nan(scores.dtype))
    return mx.argmax(frames, axis=-1).astype(mx.int32), scores


def nan(dtype: mx.Dtype) -> mx.array:
    """NaN, computed: MLX before 0.32.0 cannot compile the constant for the CPU."""
    zero = mx.array(0, dtype)
    return zero / zero


class LabelsAndScore(NamedTuple):
    labels: list[int]
    score: float


class Hypothesis(LabelsAndScore):
    """A labelling that a beam search found. Unpacks as its labels and score.

    Attributes:
        labels (list(int)): The labels.
        score (float): The logarithm of their probability, with what a scorer added.
        frames (list(int)): The frame in which each label begins on the best path of the
            labelling: what :func:`forced_align` and :func:`merge_tokens` find. Empty
            where they find no path.
        probabilities (list(float)): The mean probability of each label in its frames on
            that path.
    """

    frames: list[int]
    probabilities: list[float]

    def __new__(
        cls,
        labels: list[int],
        score: float,
        frames: Sequence[int] = (),
        probabilities: Sequence[float] = (),
    ) -> Hypothesis:
        self = super().__new__(cls, labels, score)
        self.frames = list(frames)
        self.probabilities = list(probabilities)
        return self

    def __repr__(self) -> str:
        pair = super().__repr__().removesuffix(")")
        return f"{pair}, frames={self.frames}, probabilities={self.probabilities})"


def positive(name: str, value: SupportsIndex) -> int:
    """An option that counts something, of any integer type."""
    number = as_index(value)
    if number is not None and 1 <= number <= INT32_MAX:
        return number
    fail(OP, f"{name} to be a positive int", repr(value))


def beam_search_decode(
    log_probs: Scores,
    input_lengths: Integers | None = None,
    beam_width: SupportsIndex = 100,
    blank: int = 0,
    nbest: SupportsIndex = 1,
    *,
    max_labels: SupportsIndex | None = None,
    label_threshold: float = math.inf,
    beam_threshold: float = math.inf,
    scorer: Scorer | None = None,
    prefix_scorer: PrefixScorer | None = None,
    hotwords: Mapping[Sequence[int], float] | None = None,
    rescore: bool = True,
    with_logits: bool = False,
    batch_first: bool = False,
) -> list[list[Hypothesis]] | list[Hypothesis]:
    """The most probable labellings, each summed over all paths that map to it.

    Prefix beam search, on the CPU's threads: Graves et al. 2006, section 3.2. With a
    beam as wide as there are labellings it is exact. ``log_probs`` is evaluated.
    Ctrl-C ends it within a tenth of a second, or when one more labelling is rescored.

    Args:
        log_probs (array): Log-probabilities, ``(T, N, C)`` or ``(T, C)``.
        input_lengths (array, optional): Frames of each sequence, ``(N,)``, one int for
            all or a mask ``(N, T)``. Default: ``None``, all T.
        beam_width (int, optional): Prefixes kept after each frame. Default: ``100``.
        blank (int, optional): The class that means "no label". Default: ``0``.
        nbest (int, optional): Labellings returned, at most ``beam_width``.
            Default: ``1``.
        max_labels (int, optional): Try only so many labels in a frame, the most
            probable. Default: ``None``, all.
        label_threshold (float, optional): Try no label that is less probable than the
            frame's best class by more than so many nats. Default: ``inf``.
        beam_threshold (float, optional): Keep no prefix that is less probable than the
            best by more than so many nats. Default: ``inf``.
        scorer (callable, optional): ``scorer(prefix, label)`` returns what to add to
            the score when ``label`` follows ``prefix``, a tuple of labels, such as a
            weighted log-probability of a language model. It is called once for each
            extension, and at the end of the sequence with the label ``None``. Sequences
            are then decoded one after the other. It may return ``-inf``, which rules
            the label out. Default: ``None``.
        prefix_scorer (callable, optional): A scorer of all labels at once:
            ``prefix_scorer(prefix)`` returns an array ``(C,)``, whose entry ``c`` is
            added when label ``c`` follows, and the blank's when the sequence ends. It
            is called once for each prefix as long as that stays in the beam.
            Default: ``None``.
        hotwords (dict, optional): Sequences of labels, such as tuples, and what each of
            their occurrences adds to the score. A prefix has its part of a bonus as
            soon as a sequence begins, and loses it again if the sequence does not go
            on. Default: ``None``.
        rescore (bool, optional): Give the labellings returned the sum of all their
            paths, in place of those that the beam held, and compare them with that of
            :func:`greedy_decode`, so that none less probable is the best.
            Default: ``True``.
        with_logits (bool, optional): ``log_probs`` are unnormalised logits.
            Default: ``False``.
        batch_first (bool, optional): ``log_probs`` are ``(N, T, C)``.
            Default: ``False``.

    Returns:
        list(list(Hypothesis)): For each sequence up to ``nbest`` labellings, the best
        first; fewer where fewer are possible. One list for a single sequence. A
        sequence with a NaN or ``+inf`` has an empty labelling and a score of NaN.

    Raises:
        ValueError: For wrong shapes, types and options; for lengths out of range; for a
            value more than 1e-3 above 0, which is no log-probability, unless
            ``with_logits``; and for a scorer that returns NaN, ``+inf`` or no number.
            A scorer's own exceptions are not changed.

    Examples:
        >>> import mlx.core as mx
        >>> from mlx_ctc import beam_search_decode
        >>>
        >>> probs = mx.array([[0.6, 0.4], [0.6, 0.4]])
        >>> [best] = beam_search_decode(mx.log(probs), 2)
        >>> best.labels, round(math.exp(best.score), 2)
        ([1], 0.64)
    """
    beam_width = positive("beam_width", beam_width)
    nbest = positive("nbest", nbest)
    max_labels = positive("max_labels", INT32_MAX if max_labels is None else max_labels)
    if nbest > beam_width:
        fail(OP, f"nbest of at most beam_width = {beam_width}", nbest)
    for name, value in (
        ("label_threshold", label_threshold),
        ("beam_threshold", beam_threshold),
    ):
        if not value >= 0:
            fail(OP, f"{name} of 0 or more", value)

    if scorer is not None and prefix_scorer is not None:
        fail(OP, "one scorer", "scorer and prefix_scorer")

    if isinstance(input_lengths, mx.array):
        # As a list they are known, and checked as such.
        input_lengths = cast("list[int]", input_lengths.tolist())
    # MLX has float64 on the CPU only.
    is_double = isinstance(log_probs, mx.array) and log_probs.dtype == mx.float64
    with mx.stream(mx.cpu) if is_double else nullcontext():
        log_probs, lengths, blank, is_batched = read_frames(
            OP, log_probs, input_lengths, blank, batch_first
        )
    mx.eval(log_probs)
    frames = frames_on_cpu(log_probs, with_logits)
    counts = cast("list[int]", lengths.array.tolist())
    if not with_logits:
        _ext.check_log_probs(frames, counts, MOST)
    bonuses = read_hotwords(
        {} if hotwords is None else hotwords, frames.shape[2], blank
    )
    if prefix_scorer is not None:
        prefix_scorer = checked(prefix_scorer, frames.shape[2])
    results = _ext.beam_search(
        frames,
        counts,
        beam_width=beam_width,
        blank=blank,
        nbest=nbest,
        max_labels=max_labels,
        label_threshold=label_threshold,
        beam_threshold=beam_threshold,
        rescore=rescore,
        scorer=scorer,
        prefix_scorer=prefix_scorer,
        hotwords=bonuses,
    )
    hypotheses = [[Hypothesis(*found) for found in result] for result in results]
    return hypotheses if is_batched else hypotheses[0]


def frames_on_cpu(log_probs: mx.array, with_logits: bool) -> mx.array:
    """Log-probabilities (T, N, C) as the search reads them, float32 or float64."""
    is_double = log_probs.dtype == mx.float64
    frames = log_probs if is_double else log_probs.astype(mx.float32)
    if with_logits:
        with mx.stream(mx.cpu) if is_double else nullcontext():
            frames = log_softmax(frames)
    frames = mx.contiguous(frames, stream=mx.cpu)
    mx.eval(frames)
    return frames


def read_hotwords(
    hotwords: Mapping[Sequence[int], float], C: int, blank: int
) -> list[tuple[list[int], float]]:
    """Sequences of labels and their bonuses."""
    if not isinstance(hotwords, Mapping):
        fail(OP, "hotwords as a dict of labels and bonuses", repr(hotwords))
    bonuses = []
    for labels, bonus in hotwords.items():
        numbers = [as_index(n) for n in labels] if isinstance(labels, Iterable) else []
        valid = [n for n in numbers if n is not None and 0 <= n < C and n != blank]
        if not valid or len(valid) < len(numbers):
            wanted = f"hotwords of labels in [0, {C}), without the blank {blank},"
            fail(OP, wanted, repr(labels))
        value = math.nan
        with suppress(TypeError, ValueError, OverflowError):
            value = math.fsum([bonus])  # refuses text, unlike float()
        if not math.isfinite(value):
            fail(OP, f"a finite bonus of hotword {labels}", repr(bonus))
        bonuses.append((valid, value))
    return bonuses


def checked(
    scorer: PrefixScorer, C: int
) -> Callable[[tuple[int, ...]], np.ndarray[Any, Any]]:
    """A scorer of all labels that returns (C,) in float64, or raises ValueError."""
    import numpy as np

    def numbers(returned: Any) -> np.ndarray[Any, Any]:
        if isinstance(returned, mx.array):
            returned = returned.tolist()
        return np.array(returned, np.float64, order="C")

    def score(prefix: tuple[int, ...]) -> np.ndarray[Any, Any]:
        returned = scorer(prefix)
        wanted = "prefix_scorer(prefix) to return "
        try:
            row = numbers(returned)
        except (TypeError, ValueError, OverflowError):
            fail(OP, f"{wanted}{C} numbers", f"{returned!r} for prefix {prefix}")
        if row.shape != (C,):
            fail(OP, f"{wanted}shape ({C},)", f"{row.shape} for prefix {prefix}")
        bad = np.flatnonzero(~(row < math.inf))
        if bad.size > 0:
            got = f"{row[bad[0]]} for prefix {prefix} and label {bad[0]}"
            fail(OP, f"{wanted}finite numbers or -inf", got)
        return row

    return score
