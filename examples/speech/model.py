# The recogniser's network: residual blocks of dilated convolutions over time.
# Letters: N utterances, T frames, C classes.

import mlx.core as mx
import mlx.nn as nn

# channels, blocks
SIZES = {"small": (64, 5), "medium": (128, 6), "large": (192, 6)}


class TimeConv(nn.Module):
    """A convolution over time written as one matrix product over spliced
    frames, which is the fast form on every device."""

    def __init__(self, inputs: int, outputs: int, dilation: int = 1, stride: int = 1):
        super().__init__()
        self.taps = [tap * dilation for tap in range(5)]
        self.stride = stride
        self.linear = nn.Linear(5 * inputs, outputs)

    def __call__(self, x: mx.array) -> mx.array:
        T, reach = x.shape[1], self.taps[-1]
        x = mx.pad(x, ((0, 0), (reach // 2, reach // 2), (0, 0)))
        spliced = [x[:, tap : tap + T : self.stride] for tap in self.taps]
        return self.linear(mx.concatenate(spliced, axis=-1))


class Recogniser(nn.Module):
    """Features (N, T, F) to one row of logits for every second frame,
    (N, ceil(T / 2), C). Frames past an utterance's length change nothing."""

    def __init__(self, bands: int, classes: int, channels: int, blocks: int):
        super().__init__()
        self.front = TimeConv(bands, channels, stride=2)
        self.blocks = [TimeConv(channels, channels, 2 ** (i % 3)) for i in range(blocks)]
        self.norm = nn.LayerNorm(channels)
        self.classify = nn.Linear(channels, classes)

    def __call__(self, features: mx.array, lengths: mx.array):
        x = nn.relu(self.front(features))
        lengths = (lengths + 1) // 2
        valid = (mx.arange(x.shape[1]) < lengths[:, None])[..., None]
        for block in self.blocks:
            x = x + nn.relu(block(mx.where(valid, x, 0)))
        return self.classify(self.norm(x)), lengths
