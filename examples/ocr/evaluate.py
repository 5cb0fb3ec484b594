# What a reader reads in lines, and how far that is from their texts.

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
from data import Line
from reader import Reader


@dataclass(frozen=True)
class Result:
    """Lines, and what was read in each."""

    lines: list[Line]
    texts: list[str]

    @property
    def cer(self) -> float:
        """The character error rate: how many characters are substituted, deleted or
        inserted, as a fraction of those that are there."""
        return jiwer.cer([line.text for line in self.lines], self.texts)

    @property
    def right(self) -> float:
        """The fraction of lines without an error."""
        pairs = zip(self.lines, self.texts, strict=True)
        return sum(line.text == text for line, text in pairs) / len(self.lines)

    def __str__(self) -> str:
        return f"CER {100 * self.cer:5.1f} %  lines right {100 * self.right:5.1f} %"

    def table(self) -> str:
        """A row for each source of lines, those with the most errors first."""
        found = defaultdict(lambda: Result([], []))
        for line, text in zip(self.lines, self.texts, strict=True):
            found[line.source].lines.append(line)
            found[line.source].texts.append(text)
        results = sorted(found.items(), key=lambda item: -item[1].cer)
        width = max(map(len, found))
        return "\n".join(
            f"{source:{width}}  {len(result.lines):5} lines  {result}"
            for source, result in results
        )


def evaluate(
    reader: Reader, lines: list[Line], beam_widths: Sequence[int | None] = (None,)
) -> list[Result]:
    """Read the lines, and decode the logits in each of several ways: by the best path
    for ``None``, by a beam search for a width."""
    lines = sorted(lines, key=lambda line: line.width)
    texts = [[] for _ in beam_widths]
    for i in range(0, len(lines), 16):
        logits, lengths = reader([line.image() for line in lines[i : i + 16]])
        for found, beam_width in zip(texts, beam_widths, strict=True):
            found += reader.texts(logits, lengths, beam_width)
    return [Result(lines, found) for found in texts]
