# The Free Spoken Digit Dataset, a folder of {digit}_{speaker}_{index}.wav, as strings
# of digits: recordings of one speaker, joined.

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import audio
import numpy as np

from corpora import DIGITS, LETTERS, Corpus, CorpusError, Utterance

SAMPLE_RATE = 8000

# The recordings of each speaker: their digits and samples.
Recordings = dict[str, list[tuple[int, np.ndarray]]]


def load(folder: Path, held_out_speaker: str | None = None) -> Corpus:
    """Tested on the official split, index 0 to 4, or on all recordings of a speaker who
    is never heard in training. Index 5 and 6 choose the best model."""
    left_out: list[str] = []
    train: Recordings = {}
    dev: Recordings = {}
    test: Recordings = {}
    for path in sorted(folder.glob("*.wav")):
        name = re.fullmatch(r"(\d)_([^_]+)_(\d+)", path.stem)
        if not name:
            left_out.append(f"{path}: not named {{digit}}_{{speaker}}_{{index}}.wav")
            continue
        digit, speaker, index = name.groups()
        try:
            samples = recording(path)
        except audio.AudioError as error:
            left_out.append(str(error))
            continue
        held_out = speaker == held_out_speaker if held_out_speaker else int(index) < 5
        split = test if held_out else dev if int(index) in (5, 6) else train
        split.setdefault(speaker, []).append((int(digit), samples))
    if not train or not dev or not test:
        wanted = f"of {held_out_speaker} and others" if held_out_speaker else "0 to 49"
        found = ", ".join(sorted(train | dev | test)) or "no speaker"
        raise CorpusError(
            f"Expected recordings {{digit}}_{{speaker}}_{{index}}.wav {wanted} "
            f"in {folder} but got those of {found}. {' '.join(left_out[:1])}"
        )
    return Corpus(
        f"FSDD digit strings, tested on {held_out_speaker or 'the official split'}",
        SAMPLE_RATE,
        LETTERS,
        perturb=True,
        train=list(digit_strings(train, 15)),
        dev=list(digit_strings(dev, 3)),
        test=list(digit_strings(test, 1 if held_out_speaker else 5)),
        left_out=left_out,
    )


def recording(path: Path) -> np.ndarray:
    """Its samples, the greatest of which is 1."""
    _, rate = audio.header(path)
    if rate != SAMPLE_RATE:
        raise audio.AudioError(path, f"{rate} Hz instead of {SAMPLE_RATE}")
    samples = audio.read(path, SAMPLE_RATE)
    peak = np.abs(samples).max()
    if peak == 0:
        raise audio.AudioError(path, "nothing but silence")
    return samples / peak


def digit_strings(recordings: Recordings, passes: int) -> Iterator[Utterance]:
    """Strings of one to seven recordings of one speaker, with gaps of up to 150 ms.
    Each recording is used once in a pass."""
    rng = np.random.default_rng(0)
    for _ in range(passes):
        for speaker, said in recordings.items():
            order = rng.permutation(len(said))
            while len(order):
                chosen, order = np.split(order, [rng.integers(1, 8)])
                digits, pieces = zip(*(said[i] for i in chosen), strict=True)
                gaps = rng.integers(0, 0.15 * SAMPLE_RATE, len(pieces) + 1)
                text = " ".join(DIGITS[digit] for digit in digits)
                samples = sum(map(len, pieces)) + sum(gaps)
                read = partial(joined, pieces, gaps)
                yield Utterance(f"{text} ({speaker})", speaker, text, samples, read)


def joined(pieces: list[np.ndarray], gaps: list[int]) -> np.ndarray:
    """The pieces with silence before, between and behind them."""
    silences = [np.zeros(gap, np.float32) for gap in gaps]
    parts = [silences[0]]
    for piece, silence in zip(pieces, silences[1:], strict=True):
        parts += [piece, silence]
    return np.concatenate(parts)
