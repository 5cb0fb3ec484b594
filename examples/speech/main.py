# Train a small CTC speech recogniser, test it, and keep it.

import argparse
import contextlib
import platform
import signal
import sys
import time
from pathlib import Path

import corpora
import mlx.core as mx
import pictures
from audio import AudioError
from checkpoint import CheckpointError
from corpora import Corpus, CorpusError, folder, fsdd, librispeech, synthetic
from data import Alphabet, without_infeasible
from evaluate import evaluate
from features import LogMel
from model import SIZES, Encoder
from paths import models_folder
from recogniser import Recogniser
from train import train

DIGIT_STRINGS = ("synth", "digits"), ("fsdd", "digits")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small CTC recogniser.")
    add = parser.add_argument_group("data").add_argument
    add("--corpus", choices=["synth", "fsdd", "librispeech", "folder"], default="synth")
    add(
        "--data", type=Path, metavar="FOLDER", help="where the corpus is; not for synth"
    )
    add("--say", choices=["digits", "phrases"], default="digits", help="for synth")
    add(
        "--text",
        choices=["words", "digits"],
        default="words",
        help="how to write digits",
    )
    add("--held-out-speaker", metavar="NAME", help="whom to test on, for fsdd")
    add("--characters", default=corpora.LETTERS, help="of the texts, for folder")
    add = parser.add_argument_group("model").add_argument
    add("--model", choices=SIZES, default="small", help="its size")
    add("--bands", type=int, help="of the mel scale, in place of the size's")
    add("--channels", type=int, help="in place of the size's")
    add("--blocks", type=int, help="in place of the size's")
    add("--dtype", choices=["float32", "bfloat16"], default="float32")
    add = parser.add_argument_group("training").add_argument
    add("--steps", type=int, default=1500)
    add("--batch-size", type=int, default=8)
    add("--learning-rate", type=float, default=3e-3)
    add("--evaluate-every", type=int, default=250, metavar="STEPS")
    add("--seed", type=int, default=0)
    add("--beam", type=int, default=20, metavar="WIDTH", help="of the test's search")
    add("--out", type=Path, metavar="FOLDER", help="where to save the model")
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    add("--cpu", action="store_true", help="train on the CPU where there is a GPU")
    args = parser.parse_args(argv)
    if (args.corpus == "synth") == (args.data is not None):
        parser.error("--data is for the corpora other than synth, which need it")
    if args.held_out_speaker and args.corpus != "fsdd":
        parser.error("--held-out-speaker is for --corpus fsdd")
    if args.text == "digits" and (args.corpus, args.say) not in DIGIT_STRINGS:
        parser.error("--text digits is for digit strings: fsdd, or synth's digits")
    if args.beam < 1:
        parser.error(f"--beam is a width of 1 or more, not {args.beam}")
    for name, size in SIZES[args.model].items():
        setattr(args, name, getattr(args, name) or size)
    name = args.say if args.corpus == "synth" else args.corpus
    args.out = args.out or models_folder() / f"{name}-{args.model}"
    return args


def load_corpus(args: argparse.Namespace) -> Corpus:
    if args.corpus == "synth":
        corpus = synthetic.load(args.say)
    elif args.corpus == "fsdd":
        corpus = fsdd.load(args.data, args.held_out_speaker)
    elif args.corpus == "librispeech":
        corpus = librispeech.load(args.data)
    else:
        corpus = folder.load(args.data, args.characters)
    return corpora.digits_as_symbols(corpus) if args.text == "digits" else corpus


def hint_at_slow_matrix_products():
    """MLX's CPU wheel for Linux brings a plain BLAS, ten times slower than OpenBLAS,
    but will use OpenBLAS's functions if they are loaded first."""
    a = mx.random.normal((512, 512))
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        mx.eval(a @ a)
        seconds.append(time.perf_counter() - start)
    speed = 2e-9 * 512**3 / min(seconds)
    if speed < 20:
        print(f"MLX multiplies matrices at only {speed:.0f} GFLOP/s here. Far faster:")
        print("    apt-get install libopenblas0-pthread")
        print(f"    LD_PRELOAD=libopenblas.so.0 python {' '.join(sys.argv)}")


def describe(corpus: Corpus, recogniser: Recogniser, out: Path) -> None:
    """Say what will be trained, and list the files that are of no use."""
    sizes = f"{len(corpus.train)}, {len(corpus.dev)} and {len(corpus.test)}"
    print(f"{corpus.description}: {sizes} utterances to train, choose and test")
    print(f"{recogniser.parameters / 1e6:.2f} M parameters, {mx.default_device()}")
    print(f"saving to {out}", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / "left-out.txt").write_text("".join(f"{x}\n" for x in corpus.left_out))
    for reason in corpus.left_out[:5]:
        print(f"left out: {reason}")
    if len(corpus.left_out) > 5:
        print(f"left out: {len(corpus.left_out) - 5} more, see left-out.txt there")


def report(corpus: Corpus, history: list[dict], out: Path, beam: int) -> None:
    """Test the best model: its errors, some of its transcripts, pictures."""
    recogniser = Recogniser.load(out)
    result = evaluate(recogniser, corpus.test)
    print(f"test of the best model:\n{result.table()}")
    for i in range(0, len(result.references), max(1, len(result.references) // 8)):
        print(f"  said  {result.references[i]}\n  heard {result.transcripts[i]}")
    pictures.save_curves(history, out / "curves.png")
    shown = min(corpus.test, key=lambda u: abs(u.samples / corpus.sample_rate - 3))
    with contextlib.suppress(ValueError):  # its text is longer than its audio allows
        pictures.save_alignment(
            recogniser, shown.audio(), shown.text, out / "alignment.png"
        )
    print(f"test, best path   {result}")
    print(f"test, beam of {beam:3} {evaluate(recogniser, corpus.test, beam)}")
    print(f"the model, curves.png and alignment.png are in {out}")


def run(args: argparse.Namespace, group: mx.distributed.Group) -> None:
    mx.random.seed(args.seed)
    corpus = load_corpus(args)
    alphabet = Alphabet(corpus.characters)
    features = LogMel(corpus.sample_rate, args.bands)
    model = Encoder(args.bands, alphabet.classes, args.channels, args.blocks)
    recogniser = Recogniser(model, alphabet, features)
    corpus = without_infeasible(corpus, alphabet, recogniser.frames)
    if group.rank() == 0:
        describe(corpus, recogniser, args.out)
    start = time.perf_counter()
    history = train(corpus, recogniser, args, group)
    if group.rank() == 0:
        print(f"trained in {time.perf_counter() - start:.0f} s")
        report(corpus, history, args.out, args.beam)


def main(args: argparse.Namespace) -> None:
    if args.cpu:
        mx.set_default_device(mx.cpu)
    group = mx.distributed.init()
    if args.batch_size % group.size():
        sys.exit(f"--batch-size {args.batch_size} does not divide by {group.size()}")
    on_linux_cpu = platform.system() == "Linux" and mx.default_device() == mx.cpu
    if on_linux_cpu and group.rank() == 0:
        hint_at_slow_matrix_products()
    try:
        run(args, group)
    except (AudioError, CorpusError, CheckpointError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("\nStopped. The same command with --resume goes on.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main(parse_arguments())
