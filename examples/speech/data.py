# From utterances to batches: labels, utterances of like length together, padding.
# Letters: N utterances, S labels in a target.

from itertools import pairwise
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from corpora import Corpus, Utterance


class Alphabet:
    """The characters a recogniser writes. Label 0 is the blank."""

    def __init__(self, characters: str):
        self.characters = characters
        self.labels = {character: 1 + i for i, character in enumerate(characters)}

    @property
    def classes(self) -> int:
        return 1 + len(self.characters)

    def unknown(self, text: str) -> str:
        """The characters of ``text`` that it lacks, each once."""
        return "".join(sorted(set(text) - set(self.characters)))

    def encode(self, text: str) -> list[int]:
        return [self.labels[character] for character in text]

    def decode(self, labels: list[int]) -> str:
        return "".join(self.characters[label - 1] for label in labels)


def frames_needed(labels: list[int]) -> int:
    """The fewest frames that say them: equal neighbours have a blank between."""
    return len(labels) + sum(a == b for a, b in pairwise(labels))


class Batch(NamedTuple):
    audio: mx.array  # (N, samples)
    audio_lengths: mx.array  # (N,)
    targets: mx.array  # (N, S)
    target_lengths: mx.array  # (N,)


def padded(rows: list, multiple: int, dtype: type) -> tuple[mx.array, mx.array]:
    """Rows of any length in one array, and their lengths. The array's own length
    is a multiple, so that few shapes are compiled."""
    lengths = [len(row) for row in rows]
    array = np.zeros((len(rows), -(-max(lengths) // multiple) * multiple), dtype)
    for row, values in zip(array, rows, strict=True):
        row[: len(values)] = values
    return mx.array(array), mx.array(lengths)


def perturb(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same words up to a tenth faster or slower, over a little noise."""
    places = np.arange(0, len(audio) - 1, rng.uniform(0.9, 1.1))
    audio = np.interp(places, np.arange(len(audio)), audio)
    noise = np.abs(audio).max() * 10 ** rng.uniform(-4, -2)
    return audio + rng.normal(0, noise, len(audio))


def collate(
    utterances: list[Utterance],
    alphabet: Alphabet,
    sample_rate: int,
    rng: np.random.Generator | None = None,
) -> Batch:
    """Read the utterances into one batch, perturbed if there is an ``rng``."""
    audio = [utterance.audio() for utterance in utterances]
    if rng:
        audio = [perturb(samples, rng) for samples in audio]
    labels = [alphabet.encode(utterance.text) for utterance in utterances]
    return Batch(
        *padded(audio, sample_rate // 2, np.float32), *padded(labels, 8, np.int32)
    )


class TrainingBatches:
    """The batches of a training run: ``batches[step]``, for any step. They depend on
    the seed alone, and each holds utterances of like length."""

    def __init__(self, corpus: Corpus, alphabet: Alphabet, size: int, seed: int):
        self.corpus = corpus
        self.alphabet = alphabet
        self.size = size
        self.seed = seed
        self.epoch = None

    def __getitem__(self, step: int) -> Batch:
        count = len(self.corpus.train) // self.size
        epoch, position = divmod(step, count)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, self.shuffled(epoch, count)
        utterances = [self.corpus.train[i] for i in self.order[position]]
        rng = np.random.default_rng((self.seed, step)) if self.corpus.perturb else None
        return collate(utterances, self.alphabet, self.corpus.sample_rate, rng)

    def shuffled(self, epoch: int, count: int) -> np.ndarray:  # (count, size)
        """Indices of all utterances but a remainder, as shuffled batches."""
        rng = np.random.default_rng((self.seed, epoch))
        chosen = rng.permutation(len(self.corpus.train))[: count * self.size]
        lengths = np.array([self.corpus.train[i].samples for i in chosen])
        by_length = chosen[np.argsort(lengths * rng.uniform(0.9, 1.1, len(chosen)))]
        return rng.permutation(by_length.reshape(count, self.size))
