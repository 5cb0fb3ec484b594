# What a recogniser hears, and how far that is from what was said.

from collections import defaultdict
from dataclasses import dataclass

import jiwer
from corpora import Utterance
from data import collate
from recogniser import Recogniser


@dataclass(frozen=True)
class Result:
    speakers: list[str]
    references: list[str]
    transcripts: list[str]

    @property
    def cer(self) -> float:
        """The part of the characters that is wrong, missing or too much."""
        return jiwer.cer(self.references, self.transcripts)

    @property
    def wer(self) -> float:
        """The part of the words that is wrong, missing or too much."""
        return jiwer.wer(self.references, self.transcripts)

    def __str__(self) -> str:
        return f"CER {100 * self.cer:5.1f} %  WER {100 * self.wer:5.1f} %"

    def by_speaker(self) -> dict[str, "Result"]:
        """The results of each speaker, those with the most errors first."""
        rows = defaultdict(list)
        for row in zip(self.speakers, self.references, self.transcripts, strict=True):
            rows[row[0]].append(row)
        results = {
            speaker: Result(*map(list, zip(*said, strict=True)))
            for speaker, said in rows.items()
        }
        return dict(sorted(results.items(), key=lambda item: -item[1].wer))

    def table(self) -> str:
        """A line for each speaker, and one for all."""
        results = {**self.by_speaker(), "all": self}
        width = max(map(len, results))
        lines = [f"{'speaker':{width}}  utterances   CER %   WER %"]
        for speaker, result in results.items():
            count, cer, wer = len(result.speakers), 100 * result.cer, 100 * result.wer
            lines.append(f"{speaker:{width}}  {count:10}  {cer:6.1f}  {wer:6.1f}")
        return "\n".join(lines)


def evaluate(
    recogniser: Recogniser, utterances: list[Utterance], beam_width: int | None = None
) -> Result:
    """Transcribe what was said, greedily or with a beam search of ``beam_width``."""
    utterances = sorted(utterances, key=lambda utterance: utterance.samples)
    training = recogniser.model.training
    recogniser.model.eval()
    transcripts = []
    for i in range(0, len(utterances), 16):
        batch = collate(
            utterances[i : i + 16], recogniser.alphabet, recogniser.sample_rate
        )
        logits = recogniser(batch.audio, batch.audio_lengths)
        transcripts += recogniser.transcripts(*logits, beam_width)
    recogniser.model.train(training)
    return Result(
        [utterance.speaker for utterance in utterances],
        [utterance.text for utterance in utterances],
        transcripts,
    )
