# Where utterances come from: one function for each corpus.

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import synth

LETTERS = " 'abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Utterance:
    """Something that was said. Its audio is read when it is asked for."""

    speaker: str
    text: str
    samples: int
    audio: Callable[[], np.ndarray]  # (samples,) float32 within [-1, 1]


@dataclass(frozen=True)
class Corpus:
    description: str
    sample_rate: int
    characters: str  # that the texts are written in
    perturb: bool  # whether training varies the audio, for want of more of it
    train: list[Utterance]
    test: list[Utterance]


def synthetic(train: int = 4000, test: int = 400) -> Corpus:
    """Digit strings spoken by espeak-ng, tested on voices never heard."""
    folder = synth.cached(train, test)

    def utterance(row):
        path = folder / "clips" / row["path"]
        return Utterance(
            speaker=row["client_id"],
            text=row["sentence"],
            samples=soundfile.info(path).frames,
            audio=lambda: soundfile.read(path, dtype="float32")[0],
        )

    def split(name):
        with open(folder / name, newline="") as file:
            return [utterance(row) for row in csv.DictReader(file, delimiter="\t")]

    return Corpus(
        "synthetic digit strings, tested on voices never heard",
        synth.SAMPLE_RATE,
        LETTERS,
        perturb=False,
        train=split("train.tsv"),
        test=split("test.tsv"),
    )


# The recordings of each speaker: their digits and samples.
Recordings = dict[str, list[tuple[int, np.ndarray]]]


def fsdd(folder: Path, held_out_speaker: str | None = None) -> Corpus:
    """The Free Spoken Digit Dataset, a folder of {digit}_{speaker}_{index}.wav, as
    digit strings. Tested on its official split, index 0 to 4, or on all recordings of
    a speaker who is never heard in training."""
    sample_rate = 8000
    train: Recordings = {}
    test: Recordings = {}
    for path in sorted(folder.glob("[0-9]_*_*.wav")):
        digit, speaker, index = path.stem.split("_")
        samples, rate = soundfile.read(path, dtype="float32")
        if rate != sample_rate:
            raise SystemExit(f"Expected {sample_rate} Hz but got {rate} Hz in {path}.")
        if held_out_speaker:
            split = test if speaker == held_out_speaker else train
        else:
            split = test if int(index) < 5 else train
        recording = int(digit), samples / np.abs(samples).max()
        split.setdefault(speaker, []).append(recording)
    if not train or not test:
        wanted = f"of {held_out_speaker} and others" if held_out_speaker else "0 to 49"
        found = ", ".join(sorted(train | test)) or "no speaker"
        raise SystemExit(
            f"Expected recordings {{digit}}_{{speaker}}_{{index}}.wav {wanted} "
            f"in {folder} but got those of {found}."
        )
    return Corpus(
        f"FSDD digit strings, tested on {held_out_speaker or 'the official split'}",
        sample_rate,
        LETTERS,
        perturb=True,
        train=list(digit_strings(train, 15, sample_rate)),
        test=list(digit_strings(test, 1 if held_out_speaker else 5, sample_rate)),
    )


def digit_strings(
    recordings: Recordings, passes: int, sample_rate: int
) -> Iterator[Utterance]:
    """Strings of one to seven recordings of one speaker, with gaps of up to 150 ms.
    Each recording is used once in a pass."""
    rng = np.random.default_rng(0)
    for _ in range(passes):
        for speaker, said in recordings.items():
            order = rng.permutation(len(said))
            while len(order):
                chosen, order = np.split(order, [rng.integers(1, 8)])
                digits, pieces = zip(*(said[i] for i in chosen), strict=True)
                gaps = rng.integers(0, 0.15 * sample_rate, len(pieces) + 1)
                text = " ".join(synth.DIGITS[digit] for digit in digits)
                samples = sum(map(len, pieces)) + sum(gaps)
                audio = partial(joined, pieces, gaps)
                yield Utterance(speaker, text, samples, audio)


def joined(pieces: list[np.ndarray], gaps: list[int]) -> np.ndarray:
    """The pieces with silence before, between and behind them."""
    silences = [np.zeros(gap, np.float32) for gap in gaps]
    parts = [silences[0]]
    for piece, silence in zip(pieces, silences[1:], strict=True):
        parts += [piece, silence]
    return np.concatenate(parts)


def digits_as_symbols(corpus: Corpus) -> Corpus:
    """The same corpus with "31" for "three one"."""

    def symbols(utterance):
        digits = [synth.DIGITS.index(word) for word in utterance.text.split()]
        return replace(utterance, text="".join(map(str, digits)))

    return replace(
        corpus,
        characters="0123456789",
        train=[symbols(utterance) for utterance in corpus.train],
        test=[symbols(utterance) for utterance in corpus.test],
    )
