"""The CTC loss as a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from mlx.nn import Module

from mlx_ctc.functional import ctc_loss

if TYPE_CHECKING:
    from mlx_ctc._arguments import Integers, Scores
    from mlx_ctc.functional import Reduction


class CTCLoss(Module):
    """The Connectionist Temporal Classification loss.

    A layer around :func:`mlx_ctc.ctc_loss`, which describes shapes, values and errors.
    It has no parameters.

    Args:
        blank (int, optional): The class that means "no label". Negative values count
            from the last class. Default: ``0``.
        reduction (str, optional): ``'none'`` | ``'mean'`` | ``'sum'`` |
            ``'mean_batch'`` | ``'mean_volume'``. The losses of ``mlx.nn.losses`` have
            another default in most cases, ``'none'``, and another ``'mean'``, which is
            ``'mean_batch'`` here. Default: ``'mean'``, as in torch.
        zero_infinity (bool, optional): Whether to replace an infinite loss by 0.
            Default: ``False``.
        with_logits (bool, optional): Whether the input is unnormalised logits
            instead of log-probabilities. Default: ``False``.
        normalized (bool, optional): Whether the exponentials of the input sum to 1 in
            each frame. ``False`` for scores of any other kind. Default: ``True``.
        batch_first (bool, optional): Whether the input is ``(N, T, C)`` instead of
            ``(T, N, C)``. Default: ``False``.

    Examples:
        >>> import mlx.core as mx
        >>> import mlx_ctc.nn as nn
        >>>
        >>> loss = nn.CTCLoss(with_logits=True)
        >>> logits = mx.zeros((4, 1, 3))  # 4 frames, 1 sequence, 3 classes
        >>> loss(logits, mx.array([[1, 2]]), [4], [2])
        array(0.8432, dtype=float32)
    """

    def __init__(
        self,
        blank: int = 0,
        reduction: Reduction = "mean",
        zero_infinity: bool = False,
        *,
        with_logits: bool = False,
        normalized: bool = True,
        batch_first: bool = False,
    ):
        super().__init__()  # type: ignore[no-untyped-call]
        self.blank = blank
        self.reduction = reduction
        self.zero_infinity = zero_infinity
        self.with_logits = with_logits
        self.normalized = normalized
        self.batch_first = batch_first

    def _extra_repr(self) -> str:
        return (
            f"blank={self.blank}, reduction={self.reduction!r}, "
            f"zero_infinity={self.zero_infinity}, with_logits={self.with_logits}, "
            f"normalized={self.normalized}, batch_first={self.batch_first}"
        )

    def __call__(
        self,
        log_probs: Scores,
        targets: Integers,
        input_lengths: Integers | None = None,
        target_lengths: Integers | None = None,
    ) -> mx.array:
        return ctc_loss(
            log_probs,
            targets,
            input_lengths,
            target_lengths,
            self.blank,
            self.reduction,
            self.zero_infinity,
            with_logits=self.with_logits,
            normalized=self.normalized,
            batch_first=self.batch_first,
        )
