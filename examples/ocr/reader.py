# A trained model as it is used: from images of lines to logits, from logits to text,
# and from a known text to where it stands.
# Letters: N lines, T frames, C classes, S labels in a text.

import json
import os
from pathlib import Path

import mlx.core as mx
import numpy as np
from data import Alphabet, DataError, collate, ink
from mlx.utils import tree_flatten
from model import LineNetwork

from mlx_ctc import (
    TokenSpan,
    beam_search_decode,
    forced_align,
    greedy_decode,
    merge_tokens,
)


def default_folder() -> Path:
    """Where a model is saved: in the user's cache folder, never in the source tree."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "mlx-ctc", "models", "lines")


OPTIONS = {"with_logits": True, "batch_first": True}


class Reader:
    """The network and the alphabet that it writes in."""

    def __init__(self, model: LineNetwork, alphabet: Alphabet):
        self.model = model
        self.alphabet = alphabet

    def __call__(self, images: list[np.ndarray]) -> tuple[mx.array, mx.array]:
        """Logits (N, T, C) of N images, and their lengths (N,)."""
        batch = collate([ink(image) for image in images], [])
        return self.model(batch.images, batch.widths)

    def texts(
        self, logits: mx.array, lengths: mx.array, beam_width: int | None = None
    ) -> list[str]:
        """The N texts of the best paths or, with a width, of a beam search."""
        if beam_width:
            found = beam_search_decode(logits, lengths, beam_width, **OPTIONS)
            return [self.alphabet.decode(best.labels) for best, *_ in found]
        labels, counts, _ = greedy_decode(logits, lengths, **OPTIONS)
        rows = zip(labels.tolist(), counts.tolist(), strict=True)
        return [self.alphabet.decode(row[:count]) for row, count in rows]

    def align(self, logits: mx.array, text: str) -> list[TokenSpan]:
        """The frames of each character of a text in logits (T, C)."""
        labels = self.alphabet.encode(text)
        path, scores = forced_align(
            logits, labels, len(logits), len(labels), with_logits=True
        )
        return merge_tokens(path, mx.exp(scores))

    def save(self, folder: Path) -> None:
        """Write ``reader.json`` and ``model.safetensors``. Each is replaced whole, so
        that a folder always holds a model."""
        settings = {
            "characters": self.alphabet.characters,
            "model": self.model.settings,
        }
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / "unfinished.safetensors"
        self.model.save_weights(str(unfinished))
        os.replace(unfinished, folder / "model.safetensors")
        unfinished = folder / "unfinished.json"
        unfinished.write_text(json.dumps(settings, indent=2) + "\n")
        os.replace(unfinished, folder / "reader.json")

    @classmethod
    def load(cls, folder: Path) -> "Reader":
        """What :meth:`save` wrote. Raises a ``DataError`` that names the folder."""
        try:
            settings = json.loads((folder / "reader.json").read_text())
            model = LineNetwork(**settings["model"])
            model.load_weights(str(folder / "model.safetensors"))
            alphabet = Alphabet(settings["characters"])
        except OSError as error:
            raise DataError(f"{folder}: no reader is saved there") from error
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise DataError(
                f"{folder}: the reader there is damaged or another version's"
            ) from error
        model.eval()
        return cls(model, alphabet)

    @property
    def parameters(self) -> int:
        arrays = tree_flatten(self.model.trainable_parameters())
        return sum(array.size for _, array in arrays)
