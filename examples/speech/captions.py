# An alignment as a file for other programs: Praat's TextGrid, SRT or WebVTT subtitles,
# or JSON. Times are in seconds.

import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from praatio import textgrid
from pysubs2 import SSAEvent, SSAFile, make_time
from recogniser import Alignment

from mlx_ctc import TextSpan, merge_segments

# Of subtitles, in seconds.
LONGEST_GAP = 0.5
LONGEST = 6.0


def segments(alignment: Alignment) -> list[TextSpan]:
    """Lines of subtitles: words with short pauses between them."""
    gap, longest = (
        round(seconds / alignment.frame_duration) for seconds in (LONGEST_GAP, LONGEST)
    )
    return merge_segments(alignment.words, gap, longest)


def save_textgrid(alignment: Alignment, path: Path) -> None:
    """One tier of words and one of characters."""
    duration = alignment.frames * alignment.frame_duration
    grid = textgrid.Textgrid()
    for name, labelled in (
        ("words", [(word.text, word) for word in alignment.words]),
        ("characters", zip(alignment.text, alignment.characters, strict=True)),
    ):
        entries = [
            (*span.seconds(alignment.frame_duration), text)
            for text, span in labelled
            if text != " "
        ]
        grid.addTier(textgrid.IntervalTier(name, entries, 0, duration))
    grid.save(str(path), format="long_textgrid", includeBlankSpaces=True)


def subtitles(alignment: Alignment, text_of: Callable[[str], str]) -> SSAFile:
    lines = SSAFile()
    for segment in segments(alignment):
        start, end = segment.seconds(alignment.frame_duration)
        event = SSAEvent(make_time(s=start), make_time(s=end), text_of(segment.text))
        lines.append(event)
    return lines


def save_srt(alignment: Alignment, path: Path) -> None:
    # Otherwise what stands in braces would be taken for a style.
    subtitles(alignment, str).save(path, format_="srt", keep_ssa_tags=True)


def save_vtt(alignment: Alignment, path: Path) -> None:
    def escaped(text: str) -> str:
        return html.escape(text, quote=False)

    subtitles(alignment, escaped).save(path, format_="vtt", keep_ssa_tags=True)


def described(span: TextSpan, alignment: Alignment) -> dict[str, Any]:
    start, end = span.seconds(alignment.frame_duration)
    return {
        "text": span.text,
        "start": round(start, 3),
        "end": round(end, 3),
        "score": round(span.score, 4),
        "least": round(span.least, 4),
    }


def save_json(alignment: Alignment, path: Path) -> None:
    """The words in their segments, with the mean and the least probability of their
    frames."""
    content = {
        "text": alignment.text,
        "duration": round(alignment.frames * alignment.frame_duration, 3),
        "segments": [
            {
                **described(segment, alignment),
                "words": [described(word, alignment) for word in segment.parts],
            }
            for segment in segments(alignment)
        ],
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


WRITERS: dict[str, Callable[[Alignment, Path], None]] = {
    ".textgrid": save_textgrid,
    ".srt": save_srt,
    ".vtt": save_vtt,
    ".json": save_json,
}


def save(alignment: Alignment, path: Path) -> None:
    """In the format that the name ends in. Raises a ``ValueError`` for another."""
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ValueError(f"expected a name that ends in {', '.join(WRITERS)}")
    writer(alignment, path)
