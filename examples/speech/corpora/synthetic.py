# The default corpus: digit strings or household phrases spoken by espeak-ng at the
# first run, kept in the user's cache folder, tested on voices never heard.

import contextlib
import csv
import hashlib
import os
import re
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path

import espeak
import numpy as np
import soundfile
import soxr
from paths import cache_folder
from tqdm import tqdm

from corpora import DIGITS, Corpus, folder
from corpora.folder import SAMPLE_RATE

ACCENTS = (
    "en en-us en-us-nyc en-029 en-gb-scotland en-gb-x-rp en-gb-x-gbclan en-gb-x-gbcwmd"
).split()

# Variants that croak, whisper or sound like machines.
LEFT_OUT = set(
    """
    AnxiousAndy Demonic UniRobot anikaRobot croak whisper whisperf
    robosoft robosoft2 robosoft3 robosoft4 robosoft5 robosoft6 robosoft7 robosoft8
    """.split()
)

# What is said in a house, in about a hundred words: {room} stands for one of the rooms.
PHRASES = [
    "{please}turn {state} the {room} {appliance}",
    "{please}turn the {room} {appliance} {state}",
    "{please}set the {room} heating to {degrees} degrees",
    "{please}set a timer for {minutes} minutes",
    "{please}wake me at {hour} tomorrow",
    "{please}wake me at half past {hour}",
    "{please}play {music} in the {room}",
    "{please}{move} the {room} {opening}",
    "{please}add {food} and {food} to the shopping list",
    "{please}remind me {day} to {task}",
    "what is the weather {day}",
    "what time is it",
    "how warm is it in the {room}",
    "is the {room} {appliance} {state}",
    "stop {music}",
]
CHOICES = {
    "please": "|please ",
    "state": "on|off",
    "move": "open|close",
    "room": "kitchen|bedroom|bathroom|hall|garage|office|living room|garden",
    "appliance": "light|lamp|fan|heater|radio|television",
    "opening": "window|door|blinds|curtains",
    "degrees": "sixteen|eighteen|twenty|twenty one|twenty two",
    "minutes": "two|five|ten|fifteen|twenty|twenty five|forty",
    "hour": "five|six|seven|eight|nine|ten",
    "music": "music|jazz|the news|a song",
    "food": "milk|bread|eggs|coffee|apples|cheese|rice",
    "day": "today|tomorrow|on monday|on friday|this evening",
    "task": "water the plants|feed the cat|call my mother|pay the rent",
}


def digit_string(rng: np.random.Generator) -> str:
    """One to seven spelled digits."""
    return " ".join(rng.choice(DIGITS, rng.integers(1, 8)))


def household_phrase(rng: np.random.Generator) -> str:
    """One phrase, or two of them."""

    def choice(match):
        return str(rng.choice(CHOICES[match[1]].split("|")))

    phrases = rng.choice(PHRASES, rng.integers(1, 3))
    return re.sub(r"\{(\w+)\}", choice, " and ".join(phrases))


SAYS = {"digits": digit_string, "phrases": household_phrase}


def load(say: str = "digits", train=4000, dev=200, test=400) -> Corpus:
    """Digit strings or phrases, in the numbers of utterances given."""
    counts = {"train": train, "dev": dev, "test": test}
    corpus = folder.load(cached(say, counts))
    return replace(
        corpus,
        description=f"synthetic {say}, tested on voices never heard",
        perturb=False,
    )


def cached(say: str, counts: dict[str, int]) -> Path:
    """The folder of a synthesised corpus, which its first use makes."""
    sources = Path(__file__).read_bytes() + Path(espeak.__file__).read_bytes()
    recipe = hashlib.sha256(f"{say} {counts}".encode() + sources).hexdigest()
    corpus = cache_folder() / f"espeak-{say}-{recipe[:12]}"
    if not corpus.exists():
        print(f"A corpus is synthesised, once, into {corpus}", flush=True)
        corpus.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=corpus.parent) as unfinished:
            made = Path(unfinished) / corpus.name
            synthesise(made, say, counts)
            # Another process may have been faster.
            with contextlib.suppress(OSError):
                os.replace(made, corpus)
    return corpus


def synthesise(folder: Path, say: str, counts: dict[str, int]) -> None:
    """Write a corpus in Common Voice's layout: a table for each part beside a folder of
    clips. No voice is in two parts, and no sentence in both training and another."""
    speak = espeak.Espeak()
    voices = [voice for voice in speak.variants if voice not in LEFT_OUT]
    speakers = {"dev": voices[11::14], "test": voices[3::7]}
    heard = [v for v in voices if v not in speakers["dev"] + speakers["test"]]
    speakers["train"] = heard
    rng = np.random.default_rng(0)
    (folder / "clips").mkdir(parents=True)
    progress = tqdm(total=sum(counts.values()), unit="clip", desc="synthesising speech")
    for part, count in counts.items():
        rows = []
        for i in range(count):
            speaker = speakers[part][i % len(speakers[part])]
            text = sentence(rng, say, heard=part == "train")
            samples = speak(
                text,
                f"{rng.choice(ACCENTS)}+{speaker}",
                rate=int(rng.integers(130, 250)),
                pitch=int(rng.integers(25, 75)),
                range=int(rng.integers(20, 80)),
                wordgap=int(rng.integers(0, 8)),
            )
            path = f"{part}-{i:05}.flac"
            samples = soxr.resample(samples, speak.sample_rate, SAMPLE_RATE)
            soundfile.write(folder / "clips" / path, samples, SAMPLE_RATE)
            rows.append((speaker, path, text))
            progress.update()
        with open(folder / f"{part}.tsv", "w", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(["client_id", "path", "sentence"])
            writer.writerows(rows)
    progress.close()


def sentence(rng: np.random.Generator, say: str, heard: bool) -> str:
    """Something to say. A fifth of all sentences is never heard in training."""
    while True:
        text = SAYS[say](rng)
        if (zlib.crc32(text.encode()) % 5 > 0) == heard:
            return text
