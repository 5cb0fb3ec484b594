# What is said in recordings: python transcribe.py FILE...

import argparse
import sys
from pathlib import Path

import audio
import mlx.core as mx
from language_model import WordDecoder
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
        help="search with a beam of so many texts; default: the best path, or 100 with "
        "a language model",
    )
    add(
        "--lm",
        type=Path,
        metavar="FILE.arpa",
        help="a language model of words, as text or KenLM's binary; needs --lexicon",
    )
    add(
        "--lexicon",
        type=Path,
        metavar="FILE",
        help="the words, one a line, each followed by its spelling or not",
    )
    add(
        "--lm-weight",
        type=float,
        default=1.0,
        metavar="NUMBER",
        help="of the language model's log10; default: %(default)s",
    )
    add(
        "--word-score",
        type=float,
        default=0.0,
        metavar="NUMBER",
        help="added for each word; default: %(default)s",
    )
    args = parser.parse_args(argv)
    if (args.lm is None) != (args.lexicon is None):
        parser.error("--lm and --lexicon go together")
    return args


def word_decoder(recogniser: Recogniser, args: argparse.Namespace) -> WordDecoder:
    return WordDecoder(
        recogniser.alphabet,
        args.lm,
        args.lexicon,
        args.beam or 100,
        args.lm_weight,
        args.word_score,
    )


def transcribe(
    recogniser: Recogniser,
    file: Path,
    beam_width: int | None = None,
    words: WordDecoder | None = None,
) -> str:
    """What a recording says, by the best path, by a beam search or in words of a
    lexicon. Raises an ``AudioError`` for a file that is not audio."""
    logits = recogniser.listen(audio.read(file, recogniser.sample_rate))
    if words:
        return words(logits)
    lengths = mx.array([len(logits)])
    [text] = recogniser.transcripts(logits[:, None], lengths, beam_width)
    return text


def main(args: argparse.Namespace) -> int:
    """Print each file's name and text. A file that is no recording is reported, and
    the exit status is then 1."""
    try:
        recogniser = Recogniser.load(args.model or latest_model())
        words = word_decoder(recogniser, args) if args.lm else None
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    status = 0
    for file in args.files:
        try:
            text = transcribe(recogniser, file, args.beam, words)
            print(file, text, sep="\t", flush=True)
        except audio.AudioError as error:
            print(error, file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(parse_arguments()))
