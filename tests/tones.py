# Speech of tones, a pitch for each letter, and a recogniser of it.

import functools

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import speech  # noqa: F401, makes the example's modules known

# isort: split
import paths
import soundfile
from data import Alphabet
from features import LogMel
from model import Encoder
from recogniser import Recogniser

from mlx_ctc import ctc_loss

RATE = 8000
PITCH = {"a": 400, "b": 800, "c": 1600, " ": 3000}


def tones(text, rng, rate=RATE):
    """A waveform of ``text``: a tone of a tenth of a second for each character."""
    silence, t = np.zeros(rate // 20), np.arange(rate // 10) / rate
    pieces = [silence]
    for character in text:
        pieces += [0.5 * np.sin(2 * np.pi * PITCH[character] * t), silence]
    samples = np.concatenate(pieces)
    samples += rng.normal(0, 0.003, len(samples))
    return samples.astype(np.float32)


def place(character):
    """When the character of this index is played, in seconds."""
    return 0.05 + 0.15 * character, 0.15 + 0.15 * character


def random_text(rng):
    words = ["".join(rng.choice(list("abc"), rng.integers(1, 4))) for _ in range(2)]
    return " ".join(words)


@functools.cache
def trained_recogniser():
    """One that a few seconds of training have taught tones."""
    rng = np.random.default_rng(0)
    mx.random.seed(0)
    alphabet, features = Alphabet(" abc"), LogMel(RATE)
    encoder = Encoder(features.bands, alphabet.classes, channels=16, blocks=1)
    recogniser = Recogniser(encoder, alphabet, features)
    texts = [random_text(rng) for _ in range(32)]
    waveforms = [tones(text, rng) for text in texts]
    lengths = mx.array([len(waveform) for waveform in waveforms])
    audio = np.zeros((32, max(map(len, waveforms))), np.float32)
    for row, waveform in zip(audio, waveforms, strict=True):
        row[: len(waveform)] = waveform
    inputs, lengths = features(mx.array(audio), lengths)
    targets = mx.array([label for text in texts for label in alphabet.encode(text)])
    target_lengths = [len(text) for text in texts]

    def loss_of(inputs):
        logits, T = encoder(inputs, lengths)
        return ctc_loss(logits, targets, T, target_lengths, with_logits=True)

    optimizer = optim.Adam(learning_rate=0.02)
    for _ in range(100):
        loss, gradients = nn.value_and_grad(encoder, loss_of)(inputs)
        optimizer.update(encoder, gradients)
        mx.eval(loss, encoder.parameters(), optimizer.state)
    return recogniser


def write(file, text, rng, rate=RATE, channels=1):
    """Play it into a file; of more channels than one, all but the first are silent."""
    samples = tones(text, rng, rate)
    if channels > 1:
        silence = np.zeros_like(samples)
        samples = np.stack([2 * samples] + [silence] * (channels - 1), axis=1)
    soundfile.write(file, samples, rate)
    return file


def save_as_latest(tmp_path, monkeypatch):
    """Save the recogniser in a cache folder of its own, where the tools look for it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = paths.models_folder() / "tones"
    trained_recogniser().save(folder)
    return folder
