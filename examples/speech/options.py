# What may be said on main.py's command line, and what on all tools'.

import argparse
from collections.abc import Callable
from pathlib import Path

from corpora import LETTERS
from model import SIZES
from paths import models_folder

DIGIT_STRINGS = ("synth", "digits"), ("fsdd", "digits")


def at_least(least: int) -> Callable[[str], int]:
    """The ``type`` of an option that is an integer with a lower bound."""

    def integer(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return integer


def add_model(parser: argparse.ArgumentParser) -> None:
    """The option of the tools that use a recogniser."""
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="default: the one saved last in the user's cache folder",
    )


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train a small CTC recogniser.")
    count = {"type": at_least(1), "metavar": "NUMBER"}

    add = parser.add_argument_group("data").add_argument
    add(
        "--corpus",
        choices=["synth", "fsdd", "librispeech", "folder"],
        default="synth",
        help="what to train on; default: synth, which is synthesised here",
    )
    add("--data", type=Path, metavar="FOLDER", help="where any other corpus is")
    add(
        "--say",
        choices=["digits", "phrases"],
        default="digits",
        help="what synth says: digit strings (default) or household phrases",
    )
    add(
        "--text",
        choices=["words", "digits"],
        default="words",
        help="how to write digits: three one (default) or 31",
    )
    add("--held-out-speaker", metavar="NAME", help="of fsdd: test on this one alone")
    add(
        "--characters",
        help="of folder: what its texts have; default: a to z, ' and space",
    )

    add = parser.add_argument_group("model").add_argument
    add("--model", choices=SIZES, default="small", help="its size; default: small")
    add("--bands", **count, help="of the mel scale, in place of the size's")
    add("--channels", **count, help="of every block, in place of the size's")
    add("--blocks", **count, help="in place of the size's")
    add(
        "--dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="what the network computes in; default: float32",
    )

    add = parser.add_argument_group("training").add_argument
    add(
        "--steps",
        **count,
        default=1500,
        help="batches to learn from; default: %(default)s",
    )
    add(
        "--batch-size",
        **count,
        default=8,
        help="utterances in a batch, of all processes together; default: %(default)s",
    )
    add(
        "--learning-rate",
        type=float,
        default=3e-3,
        metavar="NUMBER",
        help="the greatest, after the warm-up; default: %(default)s",
    )
    add(
        "--evaluate-every",
        **count,
        default=250,
        help="steps between evaluations and checkpoints; default: %(default)s",
    )
    add(
        "--seed",
        type=at_least(0),
        default=0,
        metavar="NUMBER",
        help="of the first weights, the batches and SpecAugment; default: %(default)s",
    )
    add(
        "--beam",
        **count,
        default=20,
        help="width of the beam search in the test; default: %(default)s",
    )
    add(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where to save the model; default: one in the user's cache folder",
    )
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    add("--cpu", action="store_true", help="train on the CPU where there is a GPU")
    return parser


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser()
    args = parser.parse_args(argv)
    if (args.corpus == "synth") == (args.data is not None):
        parser.error("--data is for the corpora other than synth, which need it")
    if args.held_out_speaker and args.corpus != "fsdd":
        parser.error("--held-out-speaker is for --corpus fsdd")
    if args.characters and args.corpus != "folder":
        parser.error("--characters is for --corpus folder")
    if args.text == "digits" and (args.corpus, args.say) not in DIGIT_STRINGS:
        parser.error("--text digits is for digit strings: fsdd, or synth's digits")
    args.characters = args.characters or LETTERS
    for name, size in SIZES[args.model].items():
        setattr(args, name, getattr(args, name) or size)
    name = args.say if args.corpus == "synth" else args.corpus
    args.out = args.out or models_folder() / f"{name}-{args.model}"
    return args
