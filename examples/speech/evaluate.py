# What a recogniser hears in utterances, and how far that is from the truth.

from dataclasses import dataclass

import jiwer
import mlx.core as mx
import numpy as np

from corpora import Utterance
from data import Alphabet, collate


@dataclass(frozen=True)
class Score:
    references: list[str]
    transcripts: list[str]

    @property
    def cer(self) -> float:
        return jiwer.cer(self.references, self.transcripts)

    @property
    def wer(self) -> float:
        return jiwer.wer(self.references, self.transcripts)

    def __str__(self) -> str:
        return f"CER {100 * self.cer:5.1f} %   WER {100 * self.wer:5.1f} %"


def greedy(logits: mx.array, lengths: mx.array) -> list[list[int]]:
    """The best class of each frame, repeats merged and blanks removed.
    ``logits`` (N, T, C), ``lengths`` (N,)."""
    best = np.array(logits.argmax(-1))
    decoded = []
    for row, length in zip(best, lengths.tolist()):
        row = row[:length]
        changes = np.diff(row, prepend=0) != 0
        decoded.append(row[changes & (row != 0)].tolist())
    return decoded


def evaluate(
    recognise, utterances: list[Utterance], alphabet: Alphabet, sample_rate: int
) -> Score:
    """Transcribe all utterances with ``recognise(audio, lengths)``, which gives
    logits (N, T, C) and their lengths (N,)."""
    by_length = sorted(utterances, key=lambda utterance: utterance.samples)
    transcripts = []
    for i in range(0, len(by_length), 32):
        batch = collate(by_length[i : i + 32], alphabet, sample_rate)
        logits, lengths = recognise(batch.audio, batch.audio_lengths)
        transcripts += map(alphabet.decode, greedy(logits, lengths))
    return Score([utterance.text for utterance in by_length], transcripts)
