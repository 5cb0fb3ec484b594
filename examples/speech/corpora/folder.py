# Recordings listed in tables of paths and texts: the layout of Common Voice and of
# many private data sets.

import csv
import zlib
from collections.abc import Iterator
from pathlib import Path

from corpora import LETTERS, Corpus, CorpusError, Utterance, recordings, required

SAMPLE_RATE = 16000
TEXT = ("sentence", "text", "transcript", "transcription")
SPEAKER = ("client_id", "speaker", "speaker_id")


def load(folder: Path, characters: str = LETTERS) -> Corpus:
    """Train on ``train.tsv``, choose by ``dev.tsv`` and test on ``test.tsv``, or the
    same with ``.csv``. Without tables for the last two, or with a single table in place
    of the folder, some of what there is takes their place: a twentieth each, or one
    recording, chosen by the files' names."""
    if folder.is_file():
        found = {"train": folder}
        folder = folder.parent
    else:
        found = {
            part: path
            for part in ("train", "dev", "test")
            for path in (folder / f"{part}.tsv", folder / f"{part}.csv")
            if path.is_file()
        }
    if "train" not in found:
        raise CorpusError(f"{folder} has neither train.tsv nor train.csv.")
    left_out: list[str] = []
    parts = {}
    for part, table in found.items():
        try:
            parts[part] = recordings(rows(table), SAMPLE_RATE, characters, left_out)
        except (UnicodeDecodeError, csv.Error) as error:
            raise CorpusError(f"{table} is no table in UTF-8: {error}") from error
    count = max(1, len(parts["train"]) // 20)
    for part in ("dev", "test"):
        if part not in parts:
            shuffled = sorted(parts["train"], key=checksum_of_name)
            parts[part], parts["train"] = shuffled[:count], shuffled[count:]
    required(folder, left_out, **parts)
    return Corpus(
        f"recordings of {folder.name}",
        SAMPLE_RATE,
        characters,
        perturb=True,
        **parts,
        left_out=left_out,
    )


def checksum_of_name(utterance: Utterance) -> int:
    return zlib.crc32(Path(utterance.name).name.encode())


def rows(table: Path) -> Iterator[tuple[Path, str, str]]:
    """The file, speaker and text of each row of a table with a header."""
    is_csv = table.suffix == ".csv"
    quoting = csv.QUOTE_MINIMAL if is_csv else csv.QUOTE_NONE
    clips = table.parent / "clips"
    with open(table, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, delimiter=",\t"[not is_csv], quoting=quoting)
        columns = reader.fieldnames or []
        text = next((name for name in TEXT if name in columns), None)
        speaker = next((name for name in SPEAKER if name in columns), None)
        if "path" not in columns or text is None:
            raise CorpusError(
                f"Expected columns path and {' or '.join(TEXT)} in {table} "
                f"but got {', '.join(columns) or 'none'}."
            )
        for row in reader:
            path = table.parent / (row["path"] or "")
            if not path.is_file() and clips.is_dir():
                path = clips / (row["path"] or "")
            said_by = row[speaker] if speaker else None
            yield path, said_by or "unknown", row[text] or ""
