# The network: convolutions over the image, then over its columns.
# Letters: N lines, H rows and W columns of an image, T frames, C classes, F features.

import mlx.core as mx
import mlx.nn as nn
from data import HEIGHT

PATCH = 4  # columns of the image to a frame, and rows to a row of patches


class Block(nn.Module):
    """A convolution over the frames in each feature, then a mix of the features."""

    def __init__(self, features: int):
        super().__init__()
        self.norm = nn.RMSNorm(features)
        self.taps = mx.random.normal((3, features)) * 3**-0.5
        self.mix = nn.Linear(features, features)

    def __call__(self, x: mx.array, valid: mx.array) -> mx.array:  # (N, T, F)
        T = x.shape[1]
        h = mx.pad(self.norm(x) * valid, ((0, 0), (1, 1), (0, 0)))
        h = sum(self.taps[i] * h[:, i : i + T] for i in range(3))
        return x + nn.relu(self.mix(h))


class LineNetwork(nn.Module):
    """From ink (N, H, W), 0 past each line's width, and the widths (N,) to logits
    (N, T, C), a frame for every ``PATCH`` columns, and their lengths (N,). What a batch
    pads a line with changes nothing."""

    def __init__(self, classes: int, features: int = 128, blocks: int = 4):
        super().__init__()
        self.settings = {"classes": classes, "features": features, "blocks": blocks}
        rows = HEIGHT // PATCH // 2
        self.strokes = nn.Conv2d(PATCH * PATCH, 48, 3, padding=1)
        self.parts = nn.Conv2d(2 * 48, 64, (1, 3), padding=(0, 1))
        self.columns = nn.Linear(rows * 64, features)
        self.blocks = [Block(features) for _ in range(blocks)]
        self.norm = nn.RMSNorm(features)
        self.classify = nn.Linear(features, classes)

    @staticmethod
    def frames(width: int | mx.array) -> int | mx.array:
        """How many frames an image of this width gives."""
        return (width + PATCH - 1) // PATCH

    def __call__(self, ink: mx.array, widths: mx.array) -> tuple[mx.array, mx.array]:
        N, H, W = ink.shape
        lengths, T = self.frames(widths), W // PATCH
        valid = (mx.arange(T) < lengths[:, None])[..., None]  # (N, T, 1)
        # The pixels of a patch become features: a pooling that loses nothing.
        x = ink.reshape(N, H // PATCH, PATCH, T, PATCH).swapaxes(2, 3)
        x = x.reshape(N, H // PATCH, T, PATCH * PATCH)
        x = nn.relu(self.strokes(x)) * valid[:, None]
        # So do two rows of patches,
        x = x.reshape(N, H // PATCH // 2, 2, T, -1).swapaxes(2, 3)
        x = x.reshape(N, H // PATCH // 2, T, -1)
        x = nn.relu(self.parts(x))
        # and at last all rows. From here on an image is a sequence of frames.
        x = x.swapaxes(1, 2).reshape(N, T, -1)
        x = nn.relu(self.columns(x))
        for block in self.blocks:
            x = block(x, valid)
        return self.classify(self.norm(x)), lengths
