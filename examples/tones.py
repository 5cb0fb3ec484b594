"""Four tones in noise: when was each heard, and how sure is that?

A stand-in for a recogniser hears three pitches. Its scores are aligned with the text
that is known to have been played, and both are drawn to tones.png.
"""

import matplotlib.pyplot as plt
import mlx.core as mx
import numpy as np

from mlx_ctc import ctc_posteriors, forced_align, merge_tokens
from mlx_ctc.plot import plot_alignment, plot_posteriors

RATE, HOP = 8000, 160
PITCH = {"a": 500, "b": 1000, "c": 2000}
PLAYED = [("a", 0.10, 0.25), ("b", 0.30, 0.45), ("c", 0.50, 0.70), ("a", 0.75, 0.90)]

rng = np.random.default_rng(0)
time = np.arange(RATE) / RATE  # one second
waveform = 0.03 * rng.normal(size=RATE)
for tone, start, end in PLAYED:
    heard = (time >= start) & (time < end)
    sound = np.sin(2 * np.pi * PITCH[tone] * time[heard])
    waveform[heard] += sound * np.hanning(heard.sum())

frames = waveform.reshape(-1, HOP) * np.hanning(HOP)
spectrogram = np.abs(np.fft.rfft(frames))
T = len(frames)

# One class for each pitch, after the blank.
bands = [pitch * HOP // RATE for pitch in PITCH.values()]
logits = np.pad(spectrogram[:, bands] / 4, ((0, 0), (1, 0)), constant_values=1.5)
logits = mx.array(logits + 0.3 * rng.normal(size=logits.shape), mx.float32)

text = "".join(tone for tone, _, _ in PLAYED)
target = [1 + list(PITCH).index(tone) for tone in text]
path, scores = forced_align(logits, target, T, len(target), with_logits=True)
spans = merge_tokens(path, mx.exp(scores))
for (tone, start, end), span in zip(PLAYED, spans, strict=True):
    found = span.seconds(HOP / RATE)
    print(f"{tone}: {start:.2f} to {end:.2f} s, found {found[0]:.2f} to {found[1]:.2f}")

figure, axes = plt.subplots(3, 1, sharex=True, figsize=(8, 6), layout="constrained")
plot_alignment(spans, text, waveform, T, duration=1.0, ax=axes[0])
plot_alignment(spans, text, np.log(spectrogram + 0.01), T, duration=1.0, ax=axes[1])
posteriors = ctc_posteriors(logits, target, T, len(target), with_logits=True)
plot_posteriors(posteriors, text, duration=1.0, ax=axes[2])
axes[2].set_xlabel("seconds")
figure.savefig("tones.png", dpi=100)
