# From lines of text to batches: labels, images of one height, lines of like width
# together, padding. Letters: N lines, H rows and W columns of an image.

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from PIL import Image, ImageFilter

HEIGHT = 32  # rows to which every image is scaled


class DataError(ValueError):
    """What is wrong with the lines to learn from, in one line."""


@dataclass(frozen=True)
class Line:
    """An image of a line, and its text. The image is made when it is asked for."""

    name: str  # of its file, or of what it is drawn from
    source: str  # whose errors are counted together: a font, a folder
    text: str
    width: int  # at the height HEIGHT
    image: Callable[[], np.ndarray]  # grey levels, 0 to 255, of any size


@dataclass(frozen=True)
class Lines:
    """Lines to train on and to test on, and what was left out and why."""

    description: str
    train: list[Line]
    test: list[Line]
    left_out: list[str]


class Alphabet:
    """The characters a reader knows. Label 0 is the blank."""

    def __init__(self, characters: str):
        self.characters = characters
        self.labels = {character: 1 + i for i, character in enumerate(characters)}

    @property
    def classes(self) -> int:
        return 1 + len(self.characters)

    def encode(self, text: str) -> list[int]:
        return [self.labels[character] for character in text]

    def decode(self, labels: list[int]) -> str:
        return "".join(self.characters[label - 1] for label in labels)


def frames_needed(text: str) -> int:
    """The fewest frames for a text: equal neighbours have a blank between."""
    return len(text) + sum(a == b for a, b in pairwise(text))


def usable(
    lines: list[Line],
    alphabet: Alphabet,
    frames: Callable[[int], int],
    left_out: list[str],
) -> list[Line]:
    """The lines whose characters are in the alphabet and whose text fits the frames
    that a reader makes of their width. The others are named in ``left_out``."""
    kept = []
    for line in lines:
        other = "".join(sorted(set(line.text) - set(alphabet.characters)))
        needed, there = frames_needed(line.text), frames(line.width)
        if other:
            left_out.append(f"{line.name}: its text has {other!r}")
        elif needed > there:
            left_out.append(f"{line.name}: its text needs {needed} frames of {there}")
        else:
            kept.append(line)
    return kept


def scaled_width(width: int, height: int) -> int:
    """How wide an image becomes that is scaled to the height HEIGHT."""
    return max(1, round(width * HEIGHT / max(height, 1)))


def ink(image: np.ndarray) -> np.ndarray:
    """Grey levels of any size as ink (HEIGHT, W) float32: about 0 on paper, which is
    also the padding, and positive on strokes, whichever of the two is the brighter."""
    height, width = image.shape
    size = scaled_width(width, height), HEIGHT
    scaled = Image.fromarray(image).resize(size, Image.Resampling.BOX)
    values = np.asarray(scaled, np.float32)
    values = np.median(values) - values  # most of a line is paper
    values *= np.sign((values**3).sum()) / (3 * values.std() + 1)
    return values


def degrade(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same line slanted, turned, blurred, faded and with noise, each a little and
    at random."""
    height, width = image.shape
    paper = int(np.median(image))
    slant, turn = rng.uniform(-0.2, 0.2), rng.uniform(-0.05, 0.05) * height / width
    page = Image.fromarray(image).transform(
        (width, height),
        Image.Transform.AFFINE,
        (1, slant, -slant * height / 2, turn, 1, -turn * width / 2),
        Image.Resampling.BILINEAR,
        fillcolor=paper,
    )
    page = page.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.03) * height))
    values = paper + rng.uniform(0.5, 1) * (np.asarray(page, np.float32) - paper)
    values += np.linspace(0, rng.uniform(-30, 30), width)  # the light falls off
    values += rng.normal(0, rng.uniform(0, 8), values.shape)
    return values.clip(0, 255).astype(np.uint8)


class Batch(NamedTuple):
    images: mx.array  # (N, H, W), 0 past each line's width
    widths: mx.array  # (N,)
    targets: list[list[int]]  # N, of any lengths


def collate(images: list[np.ndarray], targets: list[list[int]]) -> Batch:
    """One batch of ink (H, W). W is a multiple of 8, for pooling."""
    widths = [image.shape[1] for image in images]
    padded = np.zeros((len(images), HEIGHT, -(-max(widths) // 8) * 8), np.float32)
    for row, image in zip(padded, images, strict=True):
        row[:, : image.shape[1]] = image
    return Batch(mx.array(padded), mx.array(widths), targets)


class Batches:
    """The batches of a training run: ``batches[step]``, for any step, depends on the
    seed and the step alone. The lines of a batch have like widths, and together about
    so many columns: many short lines, or a few long ones. The first batches come from
    the narrowest tenth of the lines, for a model learns what stands where much sooner
    from a few characters than from a long text."""

    def __init__(
        self, lines: list[Line], alphabet: Alphabet, columns: int, steps: int, seed: int
    ):
        self.lines = sorted(lines, key=lambda line: line.width)
        self.alphabet, self.columns, self.seed = alphabet, columns, seed
        self.all_from = 0.4 * steps  # the step from which every line has its turn

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        chosen = [self.lines[i] for i in self.choose(step, rng)]
        images = [ink(degrade(line.image(), rng)) for line in chosen]
        return collate(images, [self.alphabet.encode(line.text) for line in chosen])

    def choose(self, step: int, rng: np.random.Generator) -> np.ndarray:
        """Indices of lines that are near each other in the order of widths."""
        share = min(1.0, 0.1 + 0.9 * step / self.all_from)
        middle = rng.integers(max(1, int(share * len(self.lines))))
        size = max(1, self.columns // self.lines[middle].width)
        first, last = max(0, middle - size), middle + size
        near = np.arange(first, min(last, len(self.lines)))
        return rng.choice(near, size, replace=size > len(near))
