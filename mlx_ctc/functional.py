"""The CTC loss as a function."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal, get_args

import mlx.core as mx

from mlx_ctc import _ext
from mlx_ctc._forms import Canonical

if TYPE_CHECKING:
    from mlx_ctc._forms import Integers, Scores

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
    stream: mx.Stream | mx.Device | None = None,
) -> mx.array:
    r"""The Connectionist Temporal Classification loss.

    :math:`-\ln p(\text{target} \mid \text{log\_probs})` in nats, summed over all
    alignments of the target with the frames: Graves et al., *Connectionist Temporal
    Classification*, ICML 2006. Arguments and values are those of
    ``torch.nn.functional.ctc_loss``; unlike it, a gradient is never NaN unless a
    score that it depends on is, and no length is limited.

    Args:
        log_probs (array): Log-probabilities, ``(T, N, C)``: T frames, N sequences, C
            classes; or ``(T, C)`` for a single sequence. float32, float16, bfloat16,
            or on the CPU float64. Scores ``(N, T, C)`` are passed as
            ``x.swapaxes(0, 1)``, which is read without a copy; they are not
            recognised where N equals T. ``-inf`` excludes a class. A NumPy array is
            taken as ``mx.array`` converts it, which makes float32 of float64.
        targets (array): Labels in ``[0, C)``: ``(N, S)``, where what lies past a
            target's length is ignored; or all targets one after the other,
            ``(sum(target_lengths),)``; or ``(S,)`` for a single sequence.
        input_lengths (array): Frames of each sequence, ``(N,)`` or one int for all,
            each at most T. Frames past it are ignored and get a gradient of 0.
        target_lengths (array): Labels of each target, ``(N,)`` or one int for all.
        blank (int, optional): The class that means "no label". A negative one counts
            from the last class, as an index of NumPy does. Default: ``0``.
        reduction (str, optional): ``'none'``: the loss of each sequence ``(N,)``;
            ``'mean'``: their mean, each divided by its target length (at least 1);
            ``'sum'``: their sum. A single unbatched sequence gives a scalar.
            Default: ``'mean'``.
        zero_infinity (bool, optional): A target that needs more frames than there are
            has no alignment and an infinite loss. ``True`` makes it 0. Its gradient
            is 0 either way. Default: ``False``.
        with_logits (bool, optional): ``log_probs`` are unnormalised logits and
            log-softmax is part of the function, which is faster than applying it
            before. Default: ``False``.
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
        No evaluation is forced to find values out of range. In an ``mx.array`` that
        has not been evaluated they give that sequence a loss and a gradient of NaN, in
        all T frames and also under ``zero_infinity``; the other sequences are right.

        The scores are not checked to be log-probabilities: that would read all of them
        once more in every step, and scores that do not sum to 1 have their uses.

        With ``with_logits`` the gradient is the true one,
        ``softmax(logits) - occupation``. Without, it is torch's:
        ``exp(log_probs) - occupation``, which is the same once it has passed through
        log-softmax, and only then. A loss above 1.8e8 is reported as infinite.

    Examples:
        >>> import mlx.core as mx
        >>> from mlx_ctc import ctc_loss
        >>>
        >>> logits = mx.zeros((4, 1, 3))  # 4 frames, 1 sequence, 3 classes
        >>> targets = mx.array([[1, 2]])
        >>> ctc_loss(logits, targets, [4], [2], reduction="sum", with_logits=True)
        array(1.6864, dtype=float32)
    """
    canonical = Canonical("ctc_loss")
    if reduction not in REDUCTIONS:
        canonical.fail(f"reduction to be one of {REDUCTIONS}", repr(reduction))
    with mx.stream(stream) if stream is not None else nullcontext():
        batch = canonical.batch(
            log_probs, targets, input_lengths, target_lengths, blank
        )
        loss = _ext.ctc_loss(
            *batch, with_logits=with_logits, zero_infinity=zero_infinity
        )
        if reduction == "mean":
            return mx.mean(loss / mx.maximum(batch.target_lengths, 1))
        if reduction == "sum" or log_probs.ndim == 2:
            return mx.sum(loss)
        return loss
