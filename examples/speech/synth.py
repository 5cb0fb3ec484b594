# Spoken digit strings from espeak-ng, through ctypes: the default corpus.
#
# The PyPI package espeakng-loader carries the library and its voices. espeak-ng
# is licensed under the GPL 3, so it is an optional dependency of this example.

import csv
import ctypes
import hashlib
import os
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import paths
import soundfile
import soxr
from tqdm import tqdm

SAMPLE_RATE = 16000
DIGITS = "zero one two three four five six seven eight nine".split()
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

# From espeak-ng's speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_DONT_EXIT = 0x8000
POS_CHARACTER = 1
CHARS_UTF8, ENDPAUSE = 1, 0x1000
PARAMETERS = {"rate": 1, "pitch": 3, "range": 4, "wordgap": 7}
LONGEST_DATA_PATH = 159
# int callback(short *samples, int count, espeak_EVENT *events)
CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p
)


class Espeak:
    """espeak-ng's synthesiser. The same calls in the same order give the same
    samples, in every process."""

    def __init__(self):
        try:
            import espeakng_loader
        except ImportError:
            sys.exit(
                "The default corpus is synthesised by espeak-ng (GPL 3): "
                "pip install espeakng-loader, or give --data."
            )
        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        path = espeakng_loader.get_data_path()
        if len(path) > LONGEST_DATA_PATH:
            self.link = tempfile.TemporaryDirectory()
            os.symlink(path, f"{self.link.name}/espeak-ng-data")
            path = f"{self.link.name}/espeak-ng-data"
        self.sample_rate = self.library.espeak_Initialize(
            AUDIO_OUTPUT_SYNCHRONOUS, 0, path.encode(), INITIALIZE_DONT_EXIT
        )
        if self.sample_rate <= 0:
            raise RuntimeError(f"espeak-ng did not start with the voices in {path}.")
        self.variants = sorted(os.listdir(f"{path}/voices/!v"))
        self.chunks = []
        self.receive = CALLBACK(self._receive)
        self.library.espeak_SetSynthCallback(self.receive)
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(0))

    def _receive(self, samples, count, events):
        if samples and count > 0:
            self.chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    def __call__(self, text: str, voice: str, **parameters: int) -> np.ndarray:
        """16-bit samples of ``text`` spoken by ``voice``, such as ``"en-us+f3"``."""
        if self.library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice}.")
        for name, value in parameters.items():
            self.library.espeak_SetParameter(PARAMETERS[name], value, 0)
        self.chunks.clear()
        encoded = text.encode()
        self.library.espeak_Synth(
            encoded,
            ctypes.c_size_t(len(encoded) + 1),
            0,
            POS_CHARACTER,
            0,
            CHARS_UTF8 | ENDPAUSE,
            None,
            None,
        )
        self.library.espeak_Synchronize()
        return np.frombuffer(b"".join(self.chunks), np.int16)


def digit_string(rng: np.random.Generator, test: bool) -> str:
    """One to seven spelled digits. A fifth of all strings is for the test only."""
    while True:
        text = " ".join(rng.choice(DIGITS, rng.integers(1, 8)))
        if (zlib.crc32(text.encode()) % 5 == 0) == test:
            return text


def synthesise(folder: Path, train: int, test: int) -> None:
    """Write a corpus in Common Voice's layout: ``train.tsv`` and ``test.tsv`` beside a
    folder of clips. Every seventh voice is for the test only."""
    speak = Espeak()
    voices = [voice for voice in speak.variants if voice not in LEFT_OUT]
    tested = voices[3::7]
    trained = [voice for voice in voices if voice not in tested]
    rng = np.random.default_rng(0)
    (folder / "clips").mkdir(parents=True)
    progress = tqdm(total=train + test, unit="clip", desc="synthesising speech")
    for split, count, speakers in (("train", train, trained), ("test", test, tested)):
        rows = []
        for i in range(count):
            speaker = speakers[i % len(speakers)]
            text = digit_string(rng, test=split == "test")
            samples = speak(
                text,
                f"{rng.choice(ACCENTS)}+{speaker}",
                rate=int(rng.integers(130, 250)),
                pitch=int(rng.integers(25, 75)),
                range=int(rng.integers(20, 80)),
                wordgap=int(rng.integers(0, 8)),
            )
            path = f"{split}-{i:05}.flac"
            samples = soxr.resample(samples, speak.sample_rate, SAMPLE_RATE)
            soundfile.write(folder / "clips" / path, samples, SAMPLE_RATE)
            rows.append((speaker, path, text))
            progress.update()
        with open(folder / f"{split}.tsv", "w", newline="") as file:
            writer = csv.writer(file, delimiter="\t")
            writer.writerow(["client_id", "path", "sentence"])
            writer.writerows(rows)
    progress.close()


def cached(train: int, test: int) -> Path:
    """The folder of a synthesised corpus, which its first use makes."""
    recipe = f"{train} {test}".encode() + Path(__file__).read_bytes()
    name = f"espeak-digits-{hashlib.sha256(recipe).hexdigest()[:12]}"
    folder = paths.cache_folder() / name
    if not folder.exists():
        print(f"A corpus is synthesised, once, into {folder}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
            synthesise(Path(unfinished) / name, train, test)
            os.replace(Path(unfinished) / name, folder)
    return folder
