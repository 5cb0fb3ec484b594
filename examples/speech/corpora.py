# Where utterances come from: one function per corpus.

import csv
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

import synth


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
    characters: str
    train: list[Utterance]
    test: list[Utterance]


LETTERS = " 'abcdefghijklmnopqrstuvwxyz"


def synthetic() -> Corpus:
    """Digit strings spoken by espeak-ng, tested on voices never trained on."""
    folder = synth.cached()

    def split(name):
        with open(folder / name, newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                path = folder / "clips" / row["path"]
                yield Utterance(
                    row["client_id"],
                    row["sentence"],
                    soundfile.info(path).frames,
                    lambda path=path: soundfile.read(path, dtype="float32")[0],
                )

    return Corpus(
        "synthetic digit strings (espeak-ng), tested on voices never heard",
        synth.SAMPLE_RATE,
        LETTERS,
        list(split("train.tsv")),
        list(split("test.tsv")),
    )


def fsdd(
    folder: Path, target: str = "words", held_out_speaker: str | None = None
) -> Corpus:
    """The Free Spoken Digit Dataset, ``{digit}_{speaker}_{index}.wav``, joined to
    strings of one to seven digits. Tested on the official split, index 0 to 4, or
    on every recording of a speaker who is left out of the training."""
    recordings = {"train": defaultdict(list), "test": defaultdict(list)}
    for path in sorted(folder.glob("*_*_*.wav")):
        digit, speaker, index = path.stem.split("_")
        samples, rate = soundfile.read(path, dtype="float32")
        if held_out_speaker:
            test = speaker == held_out_speaker
        else:
            test = int(index) < 5
        samples = samples / np.abs(samples).max()
        recordings["test" if test else "train"][speaker].append((int(digit), samples))
    if not recordings["train"] or not recordings["test"]:
        speakers = ", ".join(sorted({**recordings["train"], **recordings["test"]}))
        raise SystemExit(
            f"Expected recordings {{digit}}_{{speaker}}_{{index}}.wav of the speaker "
            f"to hold out and of others in {folder} but got speakers: {speakers}."
        )

    def strings(by_speaker, passes, rng):
        """Each recording is used once in each pass over its speaker."""
        for _ in range(passes):
            for speaker, said in by_speaker.items():
                order = list(rng.permutation(len(said)))
                while order:
                    count = rng.integers(1, 8)
                    chosen, order = order[:count], order[count:]
                    digits, audio = zip(*(said[i] for i in chosen))
                    gaps = rng.integers(0, 0.15 * rate, len(audio) + 1)
                    yield joined(speaker, digits, audio, gaps)

    def joined(speaker, digits, audio, gaps):
        if target == "words":
            text = " ".join(synth.DIGITS[digit] for digit in digits)
        else:
            text = "".join(map(str, digits))

        def read():
            silences = [np.zeros(gap, np.float32) for gap in gaps]
            pieces = [piece for pair in zip(silences, audio) for piece in pair]
            return np.concatenate([*pieces, silences[-1]])

        return Utterance(speaker, text, sum(map(len, audio)) + sum(gaps), read)

    rng = np.random.default_rng(0)
    return Corpus(
        f"FSDD digit strings, tested on {held_out_speaker or 'the official split'}",
        rate,
        LETTERS if target == "words" else "0123456789",
        list(strings(recordings["train"], 15, rng)),
        list(strings(recordings["test"], 1 if held_out_speaker else 5, rng)),
    )
