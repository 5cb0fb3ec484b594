"""The CTC loss as a function."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal, get_args

import mlx.core as mx

from mlx_ctc import _ext
from mlx_ctc._arguments import (
    fail,
    in_one_form,
    read_frames,
    read_targets,
    to_int32,
)

if TYPE_CHECKING:
    from mlx_ctc._arguments import Integers, Scores

Reduction = Literal["none", "mean", "sum", "mean_batch", "mean_volume"]
REDUCTIONS = get_args(Reduction)


def ctc_loss(
    log_probs: Scores,
    targets: Integers,
    input_lengths: Integers | None = None,
    target_lengths: Integers | None = None,
    blank: int = 0,
    reduction: Reduction = "mean",
    zero_infinity: bool = False,
    *,
    with_logits: bool = False,
    normalized: bool = True,
    batch_first: bool = False,
    stream: mx.Stream | mx.Device | mx.DeviceType | None = None,
) -> mx.array:
    """The Connectionist Temporal Classification loss.

    ``-ln p(target | log_probs)`` in nats, summed over all alignments of the target with
    the frames (Graves et al., *Connectionist Temporal Classification*, ICML 2006).
    Arguments and results are those of ``torch.nn.functional.ctc_loss``, with two
    differences: a gradient is NaN only if a score that it depends on is NaN or
    ``+inf``, or a label or length is out of range, and no length is limited.

    Args:
        log_probs (array): Log-probabilities, ``(T, N, C)``: T frames, N sequences, C
            classes; or ``(T, C)`` for a single sequence. float32, float16, bfloat16,
            or on the CPU float64. With ``batch_first``, ``(N, T, C)``.
            ``-inf`` excludes a class. A NumPy array is converted by ``mx.array``,
            float64 to float32.
        targets (array): Labels in ``[0, C)``: ``(N, S)``, with values past a target's
            length ignored; or all targets concatenated, ``(sum(target_lengths),)``;
            or ``(S,)`` for a single sequence; or a list of N lists of labels.
        input_lengths (array, optional): Frames of each sequence, ``(N,)`` or one int
            for all, each at most T; or a mask ``(N, T)``, ``(T,)`` for a single
            sequence, of ones or ``True`` in the sequence's frames and zeros after
            them. Later frames are ignored and have a gradient of 0. Default:
            ``None``, T for all.
        target_lengths (array, optional): Labels of each target, ``(N,)`` or one int
            for all, or a mask ``(N, S)``. Default: ``None``: a target ends before its
            first number that is negative, such as -100, or the blank; concatenated
            targets need lengths.
        blank (int, optional): The class that means "no label". Negative values count
            from the last class, as in NumPy. Default: ``0``.
        reduction (str, optional): ``'none'``: the loss of each sequence ``(N,)``;
            ``'mean'``: their mean, each divided by its target length (at least 1), as
            in torch; ``'sum'``: their sum; ``'mean_batch'``: their mean;
            ``'mean_volume'``: their sum, divided by the sum of the target lengths (at
            least 1). A single unbatched sequence gives a scalar. Default: ``'mean'``.
        zero_infinity (bool, optional): Replace an infinite loss by 0. The loss is
            infinite if the target needs more frames than the sequence has; its
            gradient is 0 in either case. Default: ``False``.
        with_logits (bool, optional): ``log_probs`` are unnormalised logits, and the
            function includes log-softmax, which is faster than a separate one.
            Default: ``False``.
        normalized (bool, optional): Whether ``exp(log_probs)`` sums to 1 in each
            frame, as after a log-softmax. With ``False`` they may be any scores, for
            example log-probabilities minus label priors; see the note on the gradient.
            The loss is the same. Not together with ``with_logits``.
            Default: ``True``.
        batch_first (bool, optional): ``log_probs`` are ``(N, T, C)``, and so is their
            gradient. They are read without a copy. Without it, such scores are not
            detected if N equals T. Default: ``False``.
        stream (Stream or Device, optional): Where to compute. Default: ``None``, the
            default stream.

    Targets and lengths may be arrays of any integer type, NumPy arrays, lists, tuples
    or ints, and masks also boolean.

    Returns:
        array: The loss in float32 (float64 for float64 input).

    Raises:
        ValueError: For wrong shapes, types or options, and for labels or lengths out of
            range in lists, ints, NumPy arrays, and in every ``mx.array`` that has been
            evaluated and is not traced by a transformation (on CUDA, the values of an
            ``mx.array`` are not read at the call).

    Note:
        The call does not evaluate arrays to check them. A label or length out of range
        in an ``mx.array`` that has not been evaluated gives its sequence a loss of NaN
        and a gradient of NaN in all T frames, also with ``zero_infinity``. So do a mask
        with another value than 0 and 1 or a one after a zero, and labels after the
        padding that ends a target. The other sequences are not affected.

        The function does not check that the scores are log-probabilities. That would
        read all of them once more in every step, and unnormalised scores have uses.

        With ``with_logits`` the gradient is ``softmax(logits) - occupation``. Without,
        it is ``exp(log_probs) - occupation``, as in torch: this equals the gradient
        with respect to the logits, and becomes correct when it is propagated through
        log-softmax. With ``normalized=False`` it is ``-occupation``, the derivative of
        the loss with respect to scores of any kind, and 0 for classes that the target
        does not have. A loss above 1.74e8 on the CPU or 1.85e8 on a GPU is reported as
        infinite.

    Examples:
        >>> import mlx.core as mx
        >>> from mlx_ctc import ctc_loss
        >>>
        >>> logits = mx.zeros((4, 1, 3))  # 4 frames, 1 sequence, 3 classes
        >>> targets = mx.array([[1, 2]])
        >>> ctc_loss(logits, targets, [4], [2], reduction="sum", with_logits=True)
        array(1.6864, dtype=float32)
    """
    if reduction not in REDUCTIONS:
        fail("ctc_loss", f"reduction to be one of {REDUCTIONS}", repr(reduction))
    if with_logits and not normalized:
        fail(
            "ctc_loss",
            "normalized=True with with_logits=True",
            "normalized=False: the log-softmax that with_logits=True includes is "
            "normalized. For other scores pass with_logits=False",
        )
    with mx.stream(stream) if stream is not None else nullcontext():
        # Most batches need no conversion. After a model's forward pass, Python's code
        # and data come from memory: the fewer functions the better.
        given: Any = (log_probs, targets, input_lengths, target_lengths, blank)
        if not batch_first and _ext.is_plain_batch("ctc_loss", *given):
            batch, counts, is_batched = given, given[3], True
        else:
            op = "ctc_loss"
            frames = read_frames(op, log_probs, input_lengths, blank, batch_first)
            labels = read_targets(op, targets, target_lengths, frames, batch_first)
            batch, is_batched = in_one_form(frames, labels), frames.is_batched
            counts = to_int32(labels.counts)
        losses = _ext.ctc_loss(
            *batch,
            with_logits=with_logits,
            zero_infinity=zero_infinity,
            normalized=normalized,
        )
        if reduction == "none" and is_batched:
            return losses
        return reduce(losses, counts, reduction)


def reduce(losses: mx.array, counts: mx.array, reduction: Reduction) -> mx.array:
    """A scalar of the losses (N,) of targets with so many labels (N,)."""
    if losses.size == 0 and reduction in ("mean", "mean_batch"):
        # Of the same kind as the sum: a compiled division of empty arrays ends the
        # process in MLX 0.32.4 on CUDA.
        return mx.sum(losses) * mx.nan
    if reduction == "mean":
        return mx.mean(losses / mx.maximum(counts, 1))
    if reduction == "mean_batch":
        return mx.mean(losses)
    if reduction == "mean_volume" and counts.size > 0:
        # Not of an empty array: see read_integers.
        return mx.sum(losses) / mx.maximum(mx.sum(counts), 1)
    return mx.sum(losses)
