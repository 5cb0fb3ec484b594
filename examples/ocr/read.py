# Read images of lines with a trained model.

import argparse
import sys
from pathlib import Path

from data import DataError
from folder import read_image
from reader import Reader, default_folder


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Read images of text lines.")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument(
        "--model", type=Path, default=default_folder(), metavar="FOLDER"
    )
    parser.add_argument(
        "--beam",
        type=int,
        metavar="NUMBER",
        help="width of a beam search; default: the best path",
    )
    args = parser.parse_args(argv)
    try:
        reader = Reader.load(args.model)
        for path in args.images:
            logits, lengths = reader([read_image(path)])
            print(f"{path}\t{reader.texts(logits, lengths, args.beam)[0]}")
    except DataError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
