"""Plots of alignments and posteriors with Matplotlib (the extra ``plot``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import matplotlib.pyplot as plt
except ImportError as error:
    raise ImportError(
        f"mlx_ctc.plot needs Matplotlib, which cannot be imported here ({error}). "
        'Install it with: pip install "mlx-ctc[plot]"'
    ) from error

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import mlx.core as mx
    import numpy.typing as npt
    from matplotlib.axes import Axes

    from mlx_ctc.alignment import TokenSpan
    from mlx_ctc.words import TextSpan

BLANK_COLOUR = "0.6"


def plot_posteriors(
    posteriors: mx.array | npt.NDArray[Any],
    labels: Sequence[str],
    duration: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plots the posteriors of each label over time, with its name at the maximum.

    Args:
        posteriors (array): Posteriors of one sequence, ``(T, S + 1)``, the blank first,
            as :func:`mlx_ctc.ctc_posteriors` returns them.
        labels (list(str)): The names of the target's S labels.
        duration (float, optional): Duration of the T frames in seconds.
            Default: ``None``, which labels the axis in frames.
        ax (Axes, optional): The axes to draw on. Default: ``None``, the current axes.

    Returns:
        Axes: The axes.

    Raises:
        ValueError: If the number of labels is not S.
    """
    ax = plt.gca() if ax is None else ax
    blank, *rows = np.asarray(posteriors).T
    if len(labels) != len(rows):
        raise ValueError(
            f"[plot_posteriors] Expected {len(rows)} labels but got {len(labels)}."
        )
    T = len(blank)
    duration = T if duration is None else duration
    time = (np.arange(T) + 0.5) * duration / max(T, 1)
    ax.plot(time, blank, color=BLANK_COLOUR, linewidth=1, linestyle=":")
    for i, (row, label) in enumerate(zip(rows, labels, strict=True)):
        colour = f"C{i % 10}"
        ax.plot(time, row, color=colour, linewidth=1)
        ax.fill_between(time, row, color=colour, alpha=0.25)
        if T > 0:
            peak = row.argmax()
            write(ax, label, time[peak], min(row[peak], 1.0), colour)
    ax.set_xlim(0, duration)
    ax.set_ylim(0, 1.15)
    ax.set_ylabel("posterior")
    return ax


def plot_alignment(
    spans: Sequence[TokenSpan | TextSpan],
    labels: Sequence[str],
    signal: mx.array | npt.NDArray[Any],
    num_frames: int,
    duration: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plots aligned spans over the waveform or spectrogram of the recording.

    Args:
        spans (list(TokenSpan)): Spans, as :func:`mlx_ctc.merge_tokens` or
            :func:`mlx_ctc.merge_words` returns them.
        labels (list(str)): The name of each span.
        signal (array): A waveform ``(samples,)``, or a spectrogram ``(time, bands)``.
        num_frames (int): Number of frames of the alignment, its ``input_length``.
        duration (float, optional): Duration of the signal in seconds.
            Default: ``None``, which labels the axis in frames.
        ax (Axes, optional): The axes to draw on. Default: ``None``, the current axes.

    Returns:
        Axes: The axes.

    Raises:
        ValueError: If the number of labels is not the number of spans.
    """
    ax = plt.gca() if ax is None else ax
    if len(labels) != len(spans):
        raise ValueError(
            f"[plot_alignment] Expected {len(spans)} labels but got {len(labels)}."
        )
    duration = num_frames if duration is None else duration
    signal = np.asarray(signal)
    if signal.ndim == 1:
        time = np.linspace(0, duration, len(signal), endpoint=False)
        greatest = max(np.abs(signal).max(initial=0), np.finfo(np.float32).tiny)
        ax.plot(time, signal, color="0.4", linewidth=0.5)
        bottom, top = -greatest, greatest
    else:
        bottom, top = 0, signal.shape[1]
        ax.imshow(
            signal.T,
            origin="lower",
            aspect="auto",
            cmap="gray_r",
            extent=(0, duration, bottom, top),
        )
        ax.set_ylabel("band")
    for i, (span, label) in enumerate(zip(spans, labels, strict=True)):
        colour = f"C{i % 10}"
        start, end = span.seconds(duration / num_frames)
        ax.axvspan(start, end, color=colour, alpha=0.3, linewidth=0)
        write(ax, label, (start + end) / 2, top, colour)
    ax.set_xlim(0, duration)
    ax.set_ylim(bottom, top + 0.15 * (top - bottom))
    return ax


def write(ax: Axes, label: str, x: float, y: float, colour: str) -> None:
    """Writes a label centred just above a point."""
    ax.annotate(
        label,
        (x, y),
        xytext=(0, 2),
        textcoords="offset points",
        horizontalalignment="center",
        verticalalignment="bottom",
        color=colour,
    )
