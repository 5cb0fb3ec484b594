# What a corpus is: utterances to train on, to choose the best model by, and to test
# that model on. Each other file of this folder loads one kind of corpus.

import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import audio
import numpy as np
from tqdm import tqdm

LETTERS = " 'abcdefghijklmnopqrstuvwxyz"
DIGITS = "zero one two three four five six seven eight nine".split()


class CorpusError(ValueError):
    """A folder that is not the corpus asked for, in one line."""


@dataclass(frozen=True)
class Utterance:
    """Something that was said. Its audio is read when it is asked for."""

    name: str  # of its file
    speaker: str
    text: str
    samples: int  # at the corpus's rate, by the file's header
    audio: Callable[[], np.ndarray]  # (samples,) float32 within [-1, 1]


@dataclass(frozen=True)
class Corpus:
    description: str
    sample_rate: int
    characters: str  # that the texts are written in
    perturb: bool  # whether training varies the audio, for want of more of it
    train: list[Utterance]
    dev: list[Utterance]  # what chooses the best model
    test: list[Utterance]  # looked at once, when training is over
    left_out: list[str]  # the files that are of no use and why, a line each


def normalised(text: str) -> str:
    """The text in small letters without punctuation but the apostrophe."""
    text = unicodedata.normalize("NFC", text).lower().replace("\u2019", "'")
    kept = (" " if unicodedata.category(c)[0] in "PS" and c != "'" else c for c in text)
    return " ".join("".join(kept).split())


def unknown(text: str, characters: str) -> str:
    """What ``text`` has that is not one of the characters, in order, each once."""
    return "".join(sorted(set(text) - set(characters)))


def recordings(
    rows: Iterable[tuple[Path, str, str]],
    sample_rate: int,
    characters: str,
    left_out: list[str],
) -> list[Utterance]:
    """Utterances from rows of a file, its speaker and its text. What cannot be used
    is named in ``left_out``."""
    utterances = []
    for path, speaker, text in tqdm(
        rows, "reading headers", unit="file", delay=2, leave=False
    ):
        text = normalised(text)
        try:
            samples, rate = audio.header(path)
        except audio.AudioError as error:
            left_out.append(str(error))
            continue
        if not text:
            left_out.append(f"{path}: it has no text")
            continue
        if other := unknown(text, characters):
            left_out.append(f"{path}: its text has {other!r}")
            continue
        samples = round(samples * sample_rate / rate)
        read = partial(audio.read, path, sample_rate)
        utterances.append(Utterance(str(path), speaker, text, samples, read))
    return utterances


def required(where: Path | str, left_out: list[str], **parts: list[Utterance]) -> None:
    """Stop where a part of the corpus is empty, with the first reasons why."""
    for name, utterances in parts.items():
        if not utterances:
            reasons = "; ".join(left_out[:3]) or "too few are listed"
            raise CorpusError(f"{where} has no utterances for {name}: {reasons}")


def digits_as_symbols(corpus: Corpus) -> Corpus:
    """The same corpus with "31" for "three one"."""

    def symbols(utterances):
        return [
            replace(
                utterance,
                text="".join(str(DIGITS.index(w)) for w in utterance.text.split()),
            )
            for utterance in utterances
        ]

    return replace(
        corpus,
        characters="0123456789",
        train=symbols(corpus.train),
        dev=symbols(corpus.dev),
        test=symbols(corpus.test),
    )
