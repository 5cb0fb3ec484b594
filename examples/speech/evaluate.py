# What a recogniser hears, and how far that is from what was said.

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
from corpora import Utterance
from data import collate
from recogniser import Recogniser


@dataclass(frozen=True)
class Result:
    """Of each utterance its speaker, what was said, and what was heard."""

    speakers: list[str]
    references: list[str]
    transcripts: list[str]

    @property
    def cer(self) -> float:
        """The character error rate: how many of them are substituted, deleted or
        inserted, as a fraction of those that were said."""
        return jiwer.cer(self.references, self.transcripts)

    @property
    def wer(self) -> float:
        """The word error rate, as a fraction of the words that were said."""
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
    recogniser: Recogniser,
    utterances: list[Utterance],
    beam_widths: Sequence[int | None] = (None,),
) -> list[Result]:
    """Transcribe the utterances, and decode the logits in each of several ways: by the
    best path for ``None``, by a beam search for a width."""
    utterances = sorted(utterances, key=lambda utterance: utterance.samples)
    training = recogniser.model.training
    recogniser.model.eval()
    transcripts = [[] for _ in beam_widths]
    for i in range(0, len(utterances), 16):
        batch = collate(
            utterances[i : i + 16], recogniser.alphabet, recogniser.sample_rate
        )
        logits, lengths = recogniser(batch.audio, batch.audio_lengths)
        for texts, beam_width in zip(transcripts, beam_widths, strict=True):
            texts += recogniser.transcripts(logits, lengths, beam_width)
    recogniser.model.train(training)
    speakers = [utterance.speaker for utterance in utterances]
    references = [utterance.text for utterance in utterances]
    return [Result(speakers, references, texts) for texts in transcripts]
