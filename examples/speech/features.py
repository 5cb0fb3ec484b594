# From waveforms to log-mel features, in MLX on whichever device trains.
# Letters: N utterances, T frames, F mel bands.

import math

import mlx.core as mx
import numpy as np


def mel_filters(sample_rate: int, fft_size: int, bands: int) -> np.ndarray:
    """Triangles of equal width on the mel scale, from 20 Hz to the Nyquist
    frequency, of shape ``(fft_size // 2 + 1, bands)``."""

    def mel(hertz):
        return 1127 * np.log1p(hertz / 700)

    edges = np.linspace(mel(20), mel(sample_rate / 2), bands + 2)
    bins = mel(np.fft.rfftfreq(fft_size, 1 / sample_rate))[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


class LogMel:
    """Log energies of mel bands, 25 ms every 10 ms, each band with mean 0 and
    variance 1 over its utterance."""

    def __init__(self, sample_rate: int, bands: int = 40):
        self.window_size = round(0.025 * sample_rate)
        self.hop = round(0.010 * sample_rate)
        self.fft_size = 2 ** math.ceil(math.log2(self.window_size))
        self.bands = bands
        self.window = mx.array(np.hanning(self.window_size).astype(np.float32))
        self.filters = mx.array(mel_filters(sample_rate, self.fft_size, bands))

    def frames(self, samples):
        """How many frames ``samples`` samples give."""
        return (samples - self.window_size) // self.hop + 1

    def samples(self, frames):
        """How many samples ``frames`` frames need."""
        return (frames - 1) * self.hop + self.window_size

    def __call__(self, audio: mx.array, lengths: mx.array):
        """``audio`` (N, samples) with ``lengths`` (N,) samples each, to
        features (N, T, F), 0 past the end, with their lengths (N,)."""
        N, T = audio.shape[0], self.frames(audio.shape[1])
        shape, strides = (N, T, self.window_size), (audio.shape[1], self.hop, 1)
        frames = mx.as_strided(audio, shape, strides) * self.window
        power = mx.abs(mx.fft.rfft(frames, n=self.fft_size)).square()
        logs = mx.log(power @ self.filters + 1e-6)

        lengths = self.frames(lengths)
        valid = (mx.arange(T) < lengths[:, None])[..., None]  # (N, T, 1)
        counts = mx.maximum(lengths, 1)[:, None, None]
        centred = logs - mx.where(valid, logs, 0).sum(1, keepdims=True) / counts
        centred = mx.where(valid, centred, 0)
        variance = centred.square().sum(1, keepdims=True) / counts
        return centred * mx.rsqrt(variance + 1e-5), lengths


def spec_augment(
    features: mx.array, bands: int = 6, frames: int = 8, count: int = 2
) -> mx.array:
    """SpecAugment (Park et al. 2019): hide up to ``count`` runs of at most
    ``bands`` bands and of at most ``frames`` frames behind zeros, their mean."""
    N, T, F = features.shape

    def hidden(size, widest):  # (N, size)
        width = mx.random.uniform(0, widest + 1, (N, count, 1))
        start = mx.random.uniform(-1, size, (N, count, 1))
        index = mx.arange(size)
        return ((index >= start) & (index < start + width - 1)).any(axis=1)

    mask = hidden(T, frames)[:, :, None] | hidden(F, bands)[:, None, :]
    return mx.where(mask, 0, features)
