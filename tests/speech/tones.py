# Speech of tones: recordings, a corpus, and a recogniser that has learned them.

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import soundfile
from data import Alphabet, padded
from features import LogMel
from model import Encoder
from recogniser import Recogniser

from mlx_ctc import ctc_loss

RATE = 8000
PITCH = {"a": 400, "b": 800, "c": 1600, " ": 3000}


def tone(seconds, pitch=400, rate=RATE):
    time = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * pitch * time)


def write_tone(path, seconds=1.0, pitch=400, rate=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(seconds, pitch, rate), rate)


def write_digits(folder, digits=3, recordings=9):
    """A folder in the layout of the Free Spoken Digit Dataset."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for digit in range(digits):
        for speaker, pitch in (("anna", 400), ("bert", 300)):
            for index in range(recordings):
                samples = tone(rng.uniform(0.2, 0.4), pitch * (1 + digit))
                path = folder / f"{digit}_{speaker}_{index}.wav"
                soundfile.write(path, samples * rng.uniform(0.2, 1), RATE)
    return folder


def tones(text, rng, rate=RATE):
    """A waveform of ``text``: a tone of a tenth of a second for each character."""
    silence = np.zeros(rate // 20)
    pieces = [silence]
    for character in text:
        pieces += [tone(0.1, PITCH[character], rate), silence]
    samples = np.concatenate(pieces)
    samples += rng.normal(0, 0.003, len(samples))
    return samples.astype(np.float32)


def place(character):
    """When the character of this index is played, in seconds."""
    return 0.05 + 0.15 * character, 0.15 + 0.15 * character


def write_text(file, text, rng, rate=RATE, channels=1):
    """Play it into a file; of more channels than one, all but the first are silent."""
    samples = tones(text, rng, rate)
    if channels > 1:
        silence = np.zeros_like(samples)
        samples = np.stack([2 * samples] + [silence] * (channels - 1), axis=1)
    soundfile.write(file, samples, rate)
    return file


def random_text(rng):
    words = ["".join(rng.choice(list("abc"), rng.integers(1, 4))) for _ in range(2)]
    return " ".join(words)


def untrained_recogniser(characters, blocks=2):
    mx.random.seed(0)
    alphabet, features = Alphabet(characters), LogMel(RATE)
    encoder = Encoder(features.bands, alphabet.classes, channels=16, blocks=blocks)
    return Recogniser(encoder, alphabet, features)


def trained_recogniser():
    """A recogniser after a few seconds of training."""
    rng = np.random.default_rng(0)
    recogniser = untrained_recogniser(" abc", blocks=1)
    encoder, alphabet = recogniser.model, recogniser.alphabet
    texts = [random_text(rng) for _ in range(32)]
    audio = padded([tones(text, rng) for text in texts], 1, np.float32)
    inputs, lengths = recogniser.features(*audio)
    targets, target_lengths = padded(
        [alphabet.encode(text) for text in texts], 1, np.int32
    )

    def loss_of(inputs):
        logits, T = encoder(inputs, lengths)
        return ctc_loss(logits, targets, T, target_lengths, with_logits=True)

    optimizer = optim.Adam(learning_rate=0.02)
    for _ in range(100):
        loss, gradients = nn.value_and_grad(encoder, loss_of)(inputs)
        optimizer.update(encoder, gradients)
        mx.eval(loss, encoder.parameters(), optimizer.state)
    return recogniser
