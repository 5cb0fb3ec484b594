# From waveforms to log-mel features, in MLX on whichever device trains.
# Letters: T frames, N utterances, F mel bands.

import math

import mlx.core as mx
import numpy as np


def mel_filters(sample_rate: int, fft_size: int, bands: int) -> np.ndarray:
    """Triangles of equal width on the mel scale, from 20 Hz to half the sample
    rate, as a matrix of shape ``(fft_size // 2 + 1, bands)``."""

    def mel(hertz):
        return 1127 * np.log1p(hertz / 700)

    corners = np.linspace(mel(20), mel(sample_rate / 2), bands + 2)
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    bins = mel(np.fft.rfftfreq(fft_size, 1 / sample_rate))[:, None]
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


class LogMel:
    """Logarithms of the energies in mel bands, over 25 ms every 10 ms, each band with
    mean 0 and variance 1 over its utterance. ``sample_rate`` is in Hz."""

    def __init__(self, sample_rate: int, bands: int = 40):
        self.sample_rate = sample_rate
        self.bands = bands
        self.window_size = round(0.025 * sample_rate)
        self.hop = round(0.010 * sample_rate)
        self.fft_size = 2 ** math.ceil(math.log2(self.window_size))
        self.window = mx.array(np.hanning(self.window_size).astype(np.float32))
        self.filters = mx.array(mel_filters(sample_rate, self.fft_size, bands))

    def frames(self, samples: int | mx.array) -> int | mx.array:
        """The number of whole windows in a number of samples, negative below one."""
        return (samples - self.window_size) // self.hop + 1

    def __call__(self, audio: mx.array, lengths: mx.array) -> tuple[mx.array, mx.array]:
        """Features (T, N, F), 0 past each end, and their lengths (N,) from ``audio``
        (N, samples) and its lengths (N,)."""
        N, samples = audio.shape
        T = self.frames(samples)
        windows = mx.as_strided(audio, (T, N, self.window_size), (self.hop, samples, 1))
        spectrum = mx.fft.rfft(windows * self.window, n=self.fft_size)
        # As real numbers: MLX 0.32.4 does not fuse complex ones on CUDA.
        parts = spectrum.view(mx.float32).reshape(T, N, -1, 2)
        power = parts.square().sum(axis=-1)
        energies = mx.log(power @ self.filters + 1e-6)

        lengths = mx.maximum(self.frames(lengths), 0)
        counts = mx.maximum(lengths, 1)[:, None]
        valid = (mx.arange(T)[:, None] < lengths)[..., None]  # (T, N, 1)
        mean = mx.where(valid, energies, 0).sum(axis=0) / counts
        centred = mx.where(valid, energies - mean, 0)
        variance = centred.square().sum(axis=0) / counts
        return centred * mx.rsqrt(variance + 1e-5), lengths


def spec_augment(
    features: mx.array,
    lengths: mx.array,
    draws: mx.array,
    frames: int = 6,
    bands: int = 4,
) -> mx.array:
    """Mask up to ``frames`` frames and up to ``bands`` bands of each utterance with the
    features' mean, which is 0 (SpecAugment, Park et al. 2019). ``draws`` (N, 4), random
    numbers within [0, 1), say how many and where."""
    T, _, F = features.shape

    def mask(size: int, within: mx.array, widest: int, draws: mx.array) -> mx.array:
        width = mx.floor(draws[:, 0] * (widest + 1))
        start = mx.floor(draws[:, 1] * mx.maximum(within - width, 0))
        index = mx.arange(size)[:, None]
        return (start <= index) & (index < start + width)  # (size, N)

    in_time = mask(T, lengths, frames, draws[:, :2])
    in_bands = mask(F, mx.array(F), bands, draws[:, 2:])
    return mx.where(in_time[..., None] | in_bands.T, 0, features)
