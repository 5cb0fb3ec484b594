# Train a small CTC reader of text lines, test it, and keep it.

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import folder
import fonts
import mlx.core as mx
from data import HEIGHT, Alphabet, Batches, DataError, Lines, usable
from evaluate import evaluate
from model import LineNetwork
from pictures import save_reading
from reader import Reader, default_folder
from train import train


def at_least(least: int) -> Callable[[str], int]:
    """The ``type`` of an option that is an integer with a lower bound."""

    def integer(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return integer


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small CTC reader of lines.")
    count = {"type": at_least(1), "metavar": "NUMBER"}
    shown = "; default: %(default)s"
    add = parser.add_argument
    add(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="train and test on NAME.png with NAME.txt, in place of drawn lines",
    )
    add("--start", type=Path, metavar="FOLDER", help="go on from a saved model")
    add(
        "--steps",
        type=at_least(0),
        default=3000,
        metavar="NUMBER",
        help=f"batches to learn from; with --start, 0 only tests{shown}",
    )
    add(
        "--batch-columns",
        **count,
        default=512,
        help=f"width of a batch's lines together, {HEIGHT} rows high{shown}",
    )
    add(
        "--learning-rate",
        type=float,
        default=4e-3,
        metavar="NUMBER",
        help=f"the greatest, after the warm-up{shown}",
    )
    add("--beam", **count, default=20, help=f"width of the search in the test{shown}")
    add(
        "--seed",
        type=at_least(0),
        default=0,
        metavar="NUMBER",
        help=f"of the first weights and of the batches{shown}",
    )
    add(
        "--out",
        type=Path,
        default=default_folder(),
        metavar="FOLDER",
        help=f"where to save the model and a picture{shown}",
    )
    add("--cpu", action="store_true", help="train on the CPU where there is a GPU")
    args = parser.parse_args(argv)
    if args.steps == 0 and args.start is None:
        parser.error("--steps 0 is for a model to --start with")
    return args


def make_reader(args: argparse.Namespace, lines: Lines) -> Reader:
    """The saved one, or a new one for the characters of the training texts."""
    if args.start:
        return Reader.load(args.start)
    characters = "".join(sorted(set().union(*(line.text for line in lines.train))))
    alphabet = Alphabet(characters)
    return Reader(LineNetwork(alphabet.classes), alphabet)


def describe(lines: Lines, reader: Reader) -> None:
    print(
        f"{lines.description}: {len(lines.train)} to train, {len(lines.test)} to test"
    )
    print(
        f"{reader.parameters / 1e6:.2f} M parameters, "
        f"{len(reader.alphabet.characters)} characters, {mx.default_device()}"
    )
    if lines.left_out:
        print(f"left out: {len(lines.left_out)}")
    for reason in lines.left_out[:5]:
        print(f"  {reason}")


def report(reader: Reader, lines: Lines, beam: int) -> None:
    """Print the errors on the test's lines, and some of what was read."""
    best_path, best_of_beam = evaluate(reader, lines.test, (None, beam))
    print(best_path.table())
    pairs = list(zip(best_path.lines, best_path.texts, strict=True))
    for line, text in pairs[:: max(1, len(pairs) // 8)]:
        print(f"  text {line.text}\n  read {text}")
    print(f"test, best path   {best_path}")
    print(f"test, beam of {beam:3} {best_of_beam}")


def run(args: argparse.Namespace) -> None:
    mx.random.seed(args.seed)
    if args.images:
        lines = folder.load(args.images, only_test=args.steps == 0)
    else:
        lines = fonts.load()
    reader = make_reader(args, lines)
    frames = reader.model.frames
    training = usable(lines.train, reader.alphabet, frames, lines.left_out)
    describe(lines, reader)
    if args.steps:
        if not training:
            raise DataError("None of the lines can be learned from.")
        start = time.perf_counter()
        batches = Batches(
            training, reader.alphabet, args.batch_columns, args.steps, args.seed
        )
        train(reader.model, batches, args.steps, args.learning_rate)
        print(f"trained in {time.perf_counter() - start:.0f} s")
        reader.save(args.out)
    report(reader, lines, args.beam)
    args.out.mkdir(parents=True, exist_ok=True)
    longer = sorted(lines.test, key=lambda line: line.width)[len(lines.test) // 2 :]
    shown = longer[:: -(-len(longer) // 6)]
    save_reading(reader, shown, args.out / "lines.png")
    left = "the model and lines.png are" if args.steps else "lines.png is"
    print(f"{left} in {args.out}")


def main(args: argparse.Namespace) -> None:
    if args.cpu:
        mx.set_default_device(mx.cpu)
    try:
        run(args)
    except (DataError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main(parse_arguments())
