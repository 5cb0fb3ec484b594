# What the tests of examples/speech share: its modules, and small recordings.

import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "examples" / "speech"

for module in ("espeakng_loader", "jiwer", "matplotlib", "soundfile", "soxr", "tqdm"):
    pytest.importorskip(module, reason=f"{module} comes with the extra 'examples'")
sys.path.insert(0, str(FOLDER))

import soundfile  # noqa: E402


def tone(seconds, pitch=400, sample_rate=8000):
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    return 0.5 * np.sin(2 * np.pi * pitch * time)


def write_tone(path, seconds=1.0, pitch=400, sample_rate=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(seconds, pitch, sample_rate), sample_rate)


def write_digits(folder, digits=3, recordings=9):
    """A folder in the layout of the Free Spoken Digit Dataset, of tones."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for digit in range(digits):
        for speaker, pitch in (("anna", 400), ("bert", 300)):
            for index in range(recordings):
                samples = tone(rng.uniform(0.2, 0.4), pitch * (1 + digit))
                path = folder / f"{digit}_{speaker}_{index}.wav"
                soundfile.write(path, samples * rng.uniform(0.2, 1), 8000)
    return folder
