# What a recogniser hears, and how far that is from what was said.
# Letters: T frames, N utterances, C classes.

from collections.abc import Callable
from dataclasses import dataclass

import jiwer
import mlx.core as mx
import numpy as np
from corpora import Corpus
from data import Alphabet, Batch, collate

from mlx_ctc import greedy_decode


@dataclass(frozen=True)
class Result:
    references: list[str]
    transcripts: list[str]

    def __str__(self) -> str:
        cer = jiwer.cer(self.references, self.transcripts)
        wer = jiwer.wer(self.references, self.transcripts)
        return f"CER {100 * cer:5.1f} %  WER {100 * wer:5.1f} %"


def evaluate(
    recognise: Callable[[Batch], tuple[mx.array, mx.array]],
    corpus: Corpus,
    alphabet: Alphabet,
) -> Result:
    """Transcribe the test utterances with ``recognise``, which makes logits (T, N, C)
    and their lengths (N,) from a batch."""
    utterances = sorted(corpus.test, key=lambda utterance: utterance.samples)
    transcripts = []
    for i in range(0, len(utterances), 16):
        batch = collate(utterances[i : i + 16], alphabet, corpus.sample_rate)
        labels, counts, _ = greedy_decode(*recognise(batch), with_logits=True)
        for row, count in zip(np.array(labels), counts.tolist(), strict=True):
            transcripts.append(alphabet.decode(row[:count]))
    return Result([utterance.text for utterance in utterances], transcripts)
