# LibriSpeech as unpacked from openslr.org/12: PART/SPEAKER/CHAPTER/*.flac beside
# SPEAKER-CHAPTER.trans.txt, whose lines are a file's name and what it says.

from collections.abc import Iterator
from pathlib import Path

from corpora import LETTERS, Corpus, CorpusError, recordings, required

SAMPLE_RATE = 16000


def load(folder: Path) -> Corpus:
    """Train on all parts that are there and named train-*, choose by dev-clean, test on
    test-clean; or on the parts of other names where there is no clean one."""
    if (folder / "LibriSpeech").is_dir():
        folder = folder / "LibriSpeech"
    left_out: list[str] = []
    parts = {}
    for part in ("train", "dev", "test"):
        found = sorted(path for path in folder.glob(f"{part}-*") if path.is_dir())
        if not found:
            raise CorpusError(f"{folder} has no folder {part}-*.")
        used = found if part == "train" else found[:1]  # "clean" is before "other"
        rows = (row for each in used for row in transcribed(each))
        parts[part] = recordings(rows, SAMPLE_RATE, LETTERS, left_out)
    required(folder, left_out, **parts)
    return Corpus(
        "LibriSpeech",
        SAMPLE_RATE,
        LETTERS,
        perturb=True,
        **parts,
        left_out=left_out,
    )


def transcribed(part: Path) -> Iterator[tuple[Path, str, str]]:
    """The file, speaker and text of each line of the transcripts."""
    for transcripts in sorted(part.glob("*/*/*.trans.txt")):
        try:
            lines = transcripts.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise CorpusError(f"{transcripts} is not text in UTF-8: {error}") from error
        for line in lines:
            name, _, text = line.partition(" ")
            speaker = name.partition("-")[0]
            yield transcripts.with_name(f"{name}.flac"), speaker, text
