# From utterances to batches: labels, utterances of like length together, padding.
# Letters: N utterances, S labels in a target.

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from corpora import Corpus, Utterance, required


class Alphabet:
    """The characters a recogniser writes. Label 0 is the blank."""

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


class Batch(NamedTuple):
    audio: mx.array  # (N, samples)
    audio_lengths: mx.array  # (N,)
    targets: mx.array  # (N, S)
    target_lengths: mx.array  # (N,)
    draws: mx.array  # (N, 4) within [0, 1), for SpecAugment; of 0 it hides nothing


def padded(rows: list, multiple: int, dtype: type) -> tuple[mx.array, mx.array]:
    """Rows of any length in one array, and their lengths. The array's own length
    is a multiple, so that few shapes are compiled."""
    lengths = [len(row) for row in rows]
    array = np.zeros((len(rows), -(-max(lengths) // multiple) * multiple), dtype)
    for row, values in zip(array, rows, strict=True):
        row[: len(values)] = values
    return mx.array(array), mx.array(lengths)


def perturb(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same words up to a tenth faster or slower (speed perturbation, Ko et al.
    2015), over a little noise."""
    places = np.arange(0, len(audio) - 1, rng.uniform(0.9, 1.1))
    audio = np.interp(places, np.arange(len(audio)), audio)
    noise = np.abs(audio).max() * 10 ** rng.uniform(-4, -2)
    return audio + rng.normal(0, noise, len(audio))


def collate(
    utterances: list[Utterance],
    alphabet: Alphabet,
    sample_rate: int,
    rngs: list[np.random.Generator] | None = None,
    perturbed: bool = False,
) -> Batch:
    """Read the utterances into one batch. For training each has an ``rng``, which
    SpecAugment and, if asked for, :func:`perturb` draw from."""
    audio = [utterance.audio() for utterance in utterances]
    draws = np.zeros((len(utterances), 4))
    if rngs:
        draws = np.stack([rng.random(4) for rng in rngs])
    if perturbed:
        audio = [perturb(*pair) for pair in zip(audio, rngs, strict=True)]
    labels = [alphabet.encode(utterance.text) for utterance in utterances]
    return Batch(
        *padded(audio, sample_rate // 8, np.float32),
        *padded(labels, 8, np.int32),
        mx.array(draws, mx.float32),
    )


def frames_needed(labels: list[int]) -> int:
    """The fewest frames for these labels: equal neighbours have a blank between."""
    return len(labels) + sum(a == b for a, b in pairwise(labels))


def without_infeasible(
    corpus: Corpus, alphabet: Alphabet, frames: Callable[[int], int]
) -> Corpus:
    """The corpus without training utterances whose text is longer than their audio
    allows, which CTC cannot learn from: a recogniser has ``frames(samples)``. Raises a
    ``CorpusError`` if there are no others."""
    kept, left_out = [], []
    for utterance in corpus.train:
        needed = frames_needed(alphabet.encode(utterance.text))
        there = frames(utterance.samples)
        if needed <= there:
            kept.append(utterance)
        else:
            left_out.append(
                f"{utterance.name}: its text needs {needed} frames, it has {there}"
            )
    required("The corpus", left_out, train=kept)
    return replace(corpus, train=kept, left_out=corpus.left_out + left_out)


class TrainingBatches:
    """The batches of a training run: ``batches[step]``, for any step. Each holds
    utterances of like length. They depend on the seed and the step alone, so that a run
    can be resumed anywhere. Of ``ranks`` processes that share the work, each reads
    every ``ranks``-th utterance of every batch."""

    def __init__(
        self,
        corpus: Corpus,
        alphabet: Alphabet,
        size: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
    ):
        self.corpus = corpus
        self.alphabet = alphabet
        self.size = size
        self.seed = seed
        self.rank = rank
        self.ranks = ranks
        self.epoch = None

    def __getitem__(self, step: int) -> Batch:
        count = max(1, len(self.corpus.train) // self.size)
        epoch, position = divmod(step, count)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, self.shuffled(epoch, count)
        chosen = self.order[position][self.rank :: self.ranks]
        places = self.rank + self.ranks * np.arange(len(chosen))
        return collate(
            [self.corpus.train[i] for i in chosen],
            self.alphabet,
            self.corpus.sample_rate,
            [np.random.default_rng((self.seed, step, 1 + place)) for place in places],
            self.corpus.perturb,
        )

    def shuffled(self, epoch: int, count: int) -> np.ndarray:  # (count, size)
        """Indices of all utterances but a remainder, as shuffled batches."""
        rng = np.random.default_rng((self.seed, epoch))
        chosen = rng.permutation(len(self.corpus.train))[: count * self.size]
        chosen = np.resize(chosen, count * self.size)  # of a corpus below one batch
        lengths = np.array([self.corpus.train[i].samples for i in chosen])
        by_length = chosen[np.argsort(lengths * rng.uniform(0.95, 1.05, len(chosen)))]
        return rng.permutation(by_length.reshape(count, self.size))
