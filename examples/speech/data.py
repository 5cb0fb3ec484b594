# From utterances to batches: labels, buckets of like length, padding.
# Letters: N utterances, S labels in a target.

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from corpora import Utterance


class Alphabet:
    """The characters a recogniser writes, label 0 being the blank."""

    def __init__(self, characters: str):
        self.characters = characters
        self.label = {character: 1 + i for i, character in enumerate(characters)}

    def __len__(self) -> int:
        return 1 + len(self.characters)

    def encode(self, text: str) -> list[int]:
        return [self.label[character] for character in text]

    def decode(self, labels) -> str:
        return "".join(self.characters[label - 1] for label in labels)


@dataclass(frozen=True)
class Batch:
    audio: mx.array  # (N, samples) float32
    audio_lengths: mx.array  # (N,)
    targets: mx.array  # (N, S)
    target_lengths: mx.array  # (N,)


def perturb(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same words said up to a tenth faster or slower, over a little noise."""
    speed = rng.uniform(0.9, 1.1)
    places = np.arange(0, len(audio) - 1, speed)
    audio = np.interp(places, np.arange(len(audio)), audio)
    noise = np.abs(audio).max() * 10 ** rng.uniform(-4, -2)
    return audio + rng.normal(0, noise, len(audio))


def padded(rows: list, multiple: int, dtype) -> tuple[mx.array, mx.array]:
    """Rows of any length in one array, with their lengths. The array's length is
    a multiple, so that few shapes are compiled."""
    lengths = [len(row) for row in rows]
    array = np.zeros((len(rows), -(-max(lengths) // multiple) * multiple), dtype)
    for i, row in enumerate(rows):
        array[i, : len(row)] = row
    return mx.array(array), mx.array(lengths)


def collate(
    utterances: list[Utterance],
    alphabet: Alphabet,
    sample_rate: int,
    rng: np.random.Generator | None = None,
) -> Batch:
    """Read the utterances, perturbed if there is an ``rng``."""
    audio = [utterance.audio() for utterance in utterances]
    if rng is not None:
        audio = [perturb(samples, rng) for samples in audio]
    targets = [alphabet.encode(utterance.text) for utterance in utterances]
    return Batch(
        *padded(audio, sample_rate // 2, np.float32), *padded(targets, 8, np.int32)
    )


class Batches:
    """An endless sequence of training batches, each of utterances of like length.
    ``batches[step]`` depends on the seed and on nothing else."""

    def __init__(self, utterances: list[Utterance], size: int, seed: int):
        self.utterances = utterances
        self.samples = np.array([utterance.samples for utterance in utterances])
        self.size = size
        self.seed = seed
        self.epoch = None

    def __getitem__(self, step: int) -> list[Utterance]:
        batches = len(self.utterances) // self.size
        epoch, position = divmod(step, batches)
        if epoch != self.epoch:
            rng = np.random.default_rng((self.seed, epoch))
            chosen = rng.permutation(len(self.utterances))[: batches * self.size]
            jitter = rng.uniform(0.9, 1.1, len(chosen))
            by_length = chosen[np.argsort(self.samples[chosen] * jitter)]
            self.order = rng.permutation(by_length.reshape(batches, self.size))
            self.epoch = epoch
        return [self.utterances[i] for i in self.order[position]]
