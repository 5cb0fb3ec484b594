# The network: separable convolutions over time in residual blocks.
# Letters: T frames, N utterances, F mel bands, C classes. Time is the first axis: a
# frame's neighbours are one slice away, and the loss takes the logits as they are.

import mlx.core as mx
import mlx.nn as nn

TAPS = 5

# Without a fast matrix product only the small one is quick.
SIZES = {
    "small": {"bands": 40, "channels": 80, "blocks": 8},
    "medium": {"bands": 64, "channels": 128, "blocks": 10},
    "large": {"bands": 64, "channels": 192, "blocks": 12},
}


def neighbours(x: mx.array, dilation: int = 1, stride: int = 1) -> list[mx.array]:
    """The frames that a convolution sees, as ``TAPS`` shifted copies of ``x``."""
    T, reach = x.shape[0], TAPS // 2 * dilation
    x = mx.pad(x, ((reach, reach), (0, 0), (0, 0)))
    return [x[tap : tap + T : stride] for tap in range(0, TAPS * dilation, dilation)]


class Block(nn.Module):
    """A convolution over time in each channel, then a mix of the channels."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.dilation = dilation
        self.norm = nn.RMSNorm(channels)
        self.taps = mx.random.normal((TAPS, channels)) * TAPS**-0.5
        self.mix = nn.Linear(channels, channels)

    def __call__(self, x: mx.array, valid: mx.array) -> mx.array:
        h = mx.where(valid, self.norm(x), 0)
        shifted = neighbours(h, self.dilation)
        h = sum(self.taps[i] * frames for i, frames in enumerate(shifted))
        return x + nn.relu(self.mix(h))


class Encoder(nn.Module):
    """From features (T, N, F), 0 past each utterance's length, and the lengths (N,) to
    logits (ceil(T / 2), N, C), one row for every second frame, and their lengths (N,).
    What a batch pads an utterance with changes nothing."""

    stride = 2

    def __init__(self, bands: int, classes: int, channels: int, blocks: int):
        super().__init__()
        self.settings = {
            "bands": bands,
            "classes": classes,
            "channels": channels,
            "blocks": blocks,
        }
        self.front = nn.Linear(TAPS * bands, channels)
        self.blocks = [Block(channels, 2 ** (i % 3)) for i in range(blocks)]
        self.norm = nn.RMSNorm(channels)
        self.classify = nn.Linear(channels, classes)

    def __call__(
        self, features: mx.array, lengths: mx.array
    ) -> tuple[mx.array, mx.array]:
        x = mx.concatenate(neighbours(features, stride=self.stride), axis=-1)
        x = nn.relu(self.front(x))
        lengths = (lengths + self.stride - 1) // self.stride
        valid = (mx.arange(x.shape[0])[:, None] < lengths)[..., None]  # (T, N, 1)
        for block in self.blocks:
            x = block(x, valid)
        return self.classify(self.norm(x)), lengths
