# What is said in recordings: python transcribe.py FILE...

import argparse
import sys
from pathlib import Path

import audio
import mlx.core as mx
from options import add_model, at_least
from paths import latest_model
from recogniser import Recogniser


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Transcribe recordings: wav, flac, mp3 and more, of any rate."
    )
    add = parser.add_argument
    add("files", type=Path, nargs="+", metavar="FILE", help="a recording")
    add_model(parser)
    add(
        "--beam",
        type=at_least(1),
        metavar="WIDTH",
        help="search with a beam of so many texts; default: the best path",
    )
    return parser.parse_args(argv)


def transcribe(
    recogniser: Recogniser, file: Path, beam_width: int | None = None
) -> str:
    """What a recording says, by the best path or by a beam search. Raises an
    ``AudioError`` for a file that is not audio."""
    logits = recogniser.listen(audio.read(file, recogniser.sample_rate))
    lengths = mx.array([len(logits)])
    [text] = recogniser.transcripts(logits[:, None], lengths, beam_width)
    return text


def main(args: argparse.Namespace) -> int:
    """Print each file's name and text. A file that is no recording is reported, and
    the exit status is then 1."""
    try:
        recogniser = Recogniser.load(args.model or latest_model())
    except ValueError as error:
        sys.exit(str(error))
    status = 0
    for file in args.files:
        try:
            print(file, transcribe(recogniser, file, args.beam), sep="\t", flush=True)
        except audio.AudioError as error:
            print(error, file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(parse_arguments()))
