# How training went, and what a recogniser heard when, as PNG files.

from pathlib import Path

import mlx.core as mx
import numpy as np
from matplotlib.figure import Figure
from recogniser import Alignment, Recogniser

from mlx_ctc import ctc_posteriors
from mlx_ctc.plot import plot_alignment, plot_posteriors


def save_curves(history: list[dict], path: Path) -> None:
    """Loss, each step's and the mean of 50, and error rates against steps.

    Each entry has ``step``, ``cer`` and ``wer`` as fractions, and ``losses`` in nats
    per label, those of the steps since the entry before.
    """
    steps = [entry["step"] for entry in history]
    losses = [loss for entry in history for loss in entry["losses"]]
    first = steps[-1] - len(losses) + 1
    width = min(50, len(losses))
    means = np.convolve(losses, np.full(width, 1 / width), "valid")
    figure = Figure(figsize=(7, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(first + np.arange(len(losses)), losses, "C0", linewidth=0.3, alpha=0.6)
    above.plot(first + width / 2 + np.arange(len(means)), means, "C0")
    above.set_yscale("log")
    above.set_ylabel("training loss, nats per label")
    for name, style in (("wer", "C1.-"), ("cer", "C2.-")):
        rates = [100 * entry[name] for entry in history]
        below.plot(steps, rates, style, label=name.upper())
    below.set_ylim(bottom=0)
    below.set_ylabel("held-out error, %")
    below.set_xlabel("step")
    below.legend()
    for ax in (above, below):
        ax.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def save_alignment(
    recogniser: Recogniser,
    waveform: np.ndarray,
    logits: mx.array,
    alignment: Alignment,
    path: Path,
) -> None:
    """A spectrogram with the aligned words, and under it how probable each character is
    over time, and the waveform with the characters' spans.

    The recogniser heard the waveform (samples,) as these logits (T, C).
    """
    T = len(logits)
    duration = T * recogniser.frame_duration
    labels = recogniser.alphabet.encode(alignment.text)
    posteriors = ctc_posteriors(logits, labels, T, len(labels), with_logits=True)
    names = alignment.text.replace(" ", "␣")
    spectrogram, _ = recogniser.features(
        mx.array(waveform)[None], mx.array([len(waveform)])
    )
    heard = waveform[: round(duration * recogniser.sample_rate)]

    width = min(max(8, 3.5 * duration), 200)  # inches
    figure = Figure(figsize=(width, 7), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1, 1))
    words = [word.text for word in alignment.words]
    plot_alignment(alignment.words, words, spectrogram[:, 0], T, duration, axes[0])
    axes[0].set_ylabel("mel band")
    plot_posteriors(posteriors, names, duration, axes[1])
    plot_alignment(alignment.characters, names, heard, T, duration, axes[2])
    axes[2].set_ylabel("waveform")
    axes[2].set_xlabel("seconds")
    figure.savefig(path, dpi=100)
