# A trained model as it is used: from a waveform to logits, from logits to text, and
# from a known text to when it was said.
# Letters: T frames, N utterances, C classes, S labels in a text.

import json
import os
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from corpora import normalised, unknown
from data import Alphabet, frames_needed
from features import LogMel
from mlx.utils import tree_flatten
from model import Encoder

from mlx_ctc import (
    TextSpan,
    TokenSpan,
    beam_search_decode,
    forced_align,
    greedy_decode,
    merge_tokens,
    merge_words,
)


class Alignment(NamedTuple):
    """When a text was said, in rows of logits."""

    text: str
    characters: list[TokenSpan]  # S
    words: list[TextSpan]
    frames: int  # T
    frame_duration: float  # seconds


class Recogniser:
    """Features, the network and the alphabet that it writes in."""

    def __init__(self, model: Encoder, alphabet: Alphabet, features: LogMel):
        self.model = model
        self.alphabet = alphabet
        self.features = features

    @property
    def sample_rate(self) -> int:
        return self.features.sample_rate

    @property
    def frame_duration(self) -> float:
        """Seconds from one row of logits to the next."""
        return self.model.stride * self.features.hop / self.sample_rate

    def frames(self, samples: int) -> int:
        """How many rows of logits so many samples give."""
        return -(-max(0, self.features.frames(samples)) // self.model.stride)

    def __call__(self, audio: mx.array, lengths: mx.array) -> tuple[mx.array, mx.array]:
        """Logits (T, N, C) and their lengths (N,) from audio (N, samples) and its
        lengths (N,)."""
        return self.model(*self.features(audio, lengths))

    def listen(self, waveform: np.ndarray) -> mx.array:
        """Logits (T, C) of one waveform (samples,) at the recogniser's rate."""
        missing = max(0, self.features.window_size - len(waveform))
        audio = mx.array(np.pad(waveform, (0, missing)))[None]
        logits, lengths = self(audio, mx.array([len(waveform)]))
        return logits[: lengths.item(), 0].astype(mx.float32)

    def transcripts(
        self, logits: mx.array, lengths: mx.array, beam_width: int | None = None
    ) -> list[str]:
        """What logits (T, N, C) of lengths (N,) say: N texts, those of the best paths
        or, with a width, the best ones of a beam search."""
        if beam_width:
            found = beam_search_decode(logits, lengths, beam_width, with_logits=True)
            return [self.alphabet.decode(best.labels) for best, *_ in found]
        labels, counts, _ = greedy_decode(logits, lengths, with_logits=True)
        rows = zip(labels.tolist(), counts.tolist(), strict=True)
        return [self.alphabet.decode(row[:count]) for row, count in rows]

    def spelling(self, text: str) -> str:
        """``text`` as the recogniser would write it. Raises a ``ValueError`` that names
        what it cannot write."""
        space = " " if " " in self.alphabet.characters else ""
        spelled = space.join(normalised(text).split())
        if other := unknown(spelled, self.alphabet.characters):
            raise ValueError(
                f"the recogniser writes {self.alphabet.characters!r}, not {other!r}"
            )
        if not spelled:
            raise ValueError("there is no text")
        return spelled

    def align(self, logits: mx.array, text: str) -> Alignment:
        """Which rows of the logits (T, C) say which character of ``text``, and which
        of its words. Raises a ``ValueError`` where they are too few."""
        text = self.spelling(text)
        labels = self.alphabet.encode(text)
        if len(logits) < frames_needed(labels):
            raise ValueError(
                f"a text of {len(text)} characters takes "
                f"{frames_needed(labels) * self.frame_duration:.2f} s or more, "
                f"and there are {len(logits) * self.frame_duration:.2f} s"
            )
        path, scores = forced_align(
            logits, labels, len(logits), len(labels), with_logits=True
        )
        characters = merge_tokens(path, mx.exp(scores))
        if " " in self.alphabet.characters:
            way = {"separator": " "}
        else:  # each character is a word
            way = {"counts": [1] * len(characters)}
        words = merge_words(characters, ("", *self.alphabet.characters), **way)
        return Alignment(text, characters, words, len(logits), self.frame_duration)

    def save(self, folder: Path):
        """Write ``recogniser.json`` and ``model.safetensors``. Each is replaced whole,
        so that a folder always holds a model."""
        settings = {
            "characters": self.alphabet.characters,
            "sample_rate": self.sample_rate,
            "bands": self.features.bands,
            "model": self.model.settings,
        }
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / "unfinished.safetensors"
        self.model.save_weights(str(unfinished))
        os.replace(unfinished, folder / "model.safetensors")
        unfinished = folder / "unfinished.json"
        unfinished.write_text(json.dumps(settings, indent=2) + "\n")
        os.replace(unfinished, folder / "recogniser.json")

    @classmethod
    def load(cls, folder: Path) -> "Recogniser":
        """What :meth:`save` wrote. Raises a ``ValueError`` that names the folder."""
        try:
            settings = json.loads((folder / "recogniser.json").read_text())
            model = Encoder(**settings["model"])
            model.load_weights(str(folder / "model.safetensors"))
            features = LogMel(settings["sample_rate"], settings["bands"])
            alphabet = Alphabet(settings["characters"])
        except OSError as error:
            raise ValueError(f"{folder}: no recogniser is saved there") from error
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{folder}: the recogniser there is damaged or another version's"
            ) from error
        model.eval()
        return cls(model, alphabet, features)

    @property
    def parameters(self) -> int:
        arrays = tree_flatten(self.model.trainable_parameters())
        return sum(array.size for _, array in arrays)
