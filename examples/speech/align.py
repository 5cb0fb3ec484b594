# When each word of a known text is said: python align.py FILE TEXT

import argparse
import sys
from pathlib import Path

import audio
import captions
from options import add_model
from paths import latest_model
from pictures import save_alignment
from recogniser import Recogniser


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Print when each word of a known text is said in a recording."
    )
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="a recording")
    add("text", metavar="TEXT", help="what is said in it")
    add_model(parser)
    add("--plot", type=Path, metavar="FILE.png", help="draw it too")
    add(
        "--out",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="write it too: .TextGrid, .srt, .vtt or .json",
    )
    return parser.parse_args(argv)


def main(args: argparse.Namespace):
    try:
        recogniser = Recogniser.load(args.model or latest_model())
        waveform = audio.read(args.file, recogniser.sample_rate)
    except ValueError as error:
        sys.exit(str(error))
    logits = recogniser.listen(waveform)
    try:
        alignment = recogniser.align(logits, args.text)
    except ValueError as error:
        sys.exit(f"{args.file}: {error}")
    print("start s   end s  score  word")
    for word in alignment.words:
        start, end = word.seconds(recogniser.frame_duration)
        print(f"{start:7.2f} {end:7.2f}  {word.score:5.2f}  {word.text}")
    for path in args.out:
        try:
            captions.save(alignment, path)
        except (OSError, ValueError) as error:
            sys.exit(f"{path}: {error}")
    if args.plot:
        try:
            save_alignment(recogniser, waveform, logits, alignment, args.plot)
        except (OSError, ValueError) as error:
            sys.exit(f"{args.plot}: {error}")


if __name__ == "__main__":
    main(parse_arguments())
