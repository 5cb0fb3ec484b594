"""The CTC loss as a function."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal, get_args

import mlx.core as mx

from mlx_ctc import _ext
from mlx_ctc._arguments import fail, read_batch

if TYPE_CHECKING:
    from mlx_ctc._arguments import Integers, Scores

Reduction = Literal["none", "mean", "sum"]
REDUCTIONS = get_args(Reduction)


def ctc_loss(
    log_probs: Scores,
    targets: Integers,
    input_lengths: Integers,
    target_lengths: Integers,
    blank: int = 0,
    reduction: Reduction = "mean",
    zero_infinity: bool = False,
    *,
    with_logits: bool = False,
    normalized: bool = True,
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
            or on the CPU float64. Pass scores ``(N, T, C)`` as
            ``x.swapaxes(0, 1)``, which is read without a copy; passed as they are,
            they are not detected if N equals T. ``-inf`` excludes a class. A NumPy
            array is converted by ``mx.array``, float64 to float32.
        targets (array): Labels in ``[0, C)``: ``(N, S)``, with values past a target's
            length ignored; or all targets concatenated, ``(sum(target_lengths),)``;
            or ``(S,)`` for a single sequence.
        input_lengths (array): Frames of each sequence, ``(N,)`` or one int for all,
            each at most T. Later frames are ignored and have a gradient of 0.
        target_lengths (array): Labels of each target, ``(N,)`` or one int for all.
        blank (int, optional): The class that means "no label". Negative values count
            from the last class, as in NumPy. Default: ``0``.
        reduction (str, optional): ``'none'``: the loss of each sequence ``(N,)``;
            ``'mean'``: their mean, each divided by its target length (at least 1);
            ``'sum'``: their sum. A single unbatched sequence gives a scalar.
            Default: ``'mean'``.
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
        stream (Stream or Device, optional): Where to compute. Default: ``None``, the
            default stream.

    Targets and lengths may be arrays of any integer type, NumPy arrays, lists, tuples
    or ints.

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
        and a gradient of NaN in all T frames, also with ``zero_infinity``. The other
        sequences are not affected.

        The function does not check that the scores are log-probabilities. That would
        read all of them once more in every step, and unnormalised scores have uses.

        With ``with_logits`` the gradient is ``softmax(logits) - occupation``. Without,
        it is ``exp(log_probs) - occupation``, as in torch: this equals the gradient
        with respect to the logits, and becomes correct when it is propagated through
        log-softmax. With ``normalized=False`` it is ``-occupation``, the derivative of
        the loss with respect to scores of any kind, and 0 for classes that the target
        does not have. A loss above 1.8e8 is reported as infinite.

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
        batch = read_batch(
            "ctc_loss", log_probs, targets, input_lengths, target_lengths, blank
        )
        loss = _ext.ctc_loss(
            *batch,
            with_logits=with_logits,
            zero_infinity=zero_infinity,
            normalized=normalized,
        )
        if reduction == "mean":
            if loss.size == 0:
                # Of the same kind as the sum: a compiled division of empty arrays ends
                # the process in MLX 0.32.4 on CUDA.
                return mx.sum(loss) * mx.nan
            return mx.mean(loss / mx.maximum(batch.target_lengths, 1))
        if reduction == "sum" or log_probs.ndim == 2:
            return mx.sum(loss)
        return loss
