# Train a small CTC speech recogniser, test it, and keep it.

import argparse
import platform
import shlex
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
from loop import train
from model import Encoder
from options import parse_arguments
from recogniser import Recogniser


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
        command = shlex.join([sys.executable, *sys.argv])
        print(f"    LD_PRELOAD=libopenblas.so.0 {command}")


def describe(corpus: Corpus, recogniser: Recogniser, out: Path) -> None:
    """Say what will be trained, and list the files that are of no use."""
    sizes = f"{len(corpus.train)}, {len(corpus.dev)} and {len(corpus.test)}"
    print(f"{corpus.description}: {sizes} utterances to train, choose and test")
    print(f"{recogniser.parameters / 1e6:.2f} M parameters, {mx.default_device()}")
    print(f"saving to {out}", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    listed = out / "left-out.txt"
    listed.write_text("".join(f"{reason}\n" for reason in corpus.left_out))
    if corpus.left_out:
        print(f"left out: {len(corpus.left_out)}, listed in {listed}", flush=True)
    for reason in corpus.left_out[:5]:
        print(f"  {reason}", flush=True)


def report(recogniser: Recogniser, corpus: Corpus, beam: int) -> None:
    """Print the errors on the test's utterances, and some of the transcripts."""
    best_path, best_of_beam = evaluate(recogniser, corpus.test, (None, beam))
    print(f"test of the best model:\n{best_path.table()}")
    said, heard = best_path.references, best_path.transcripts
    for i in range(0, len(said), max(1, len(said) // 8)):
        print(f"  said  {said[i]}\n  heard {heard[i]}")
    print(f"test, best path   {best_path}")
    print(f"test, beam of {beam:3} {best_of_beam}")


def draw(
    recogniser: Recogniser, corpus: Corpus, history: list[dict], out: Path
) -> None:
    """Save curves.png, and the alignment of a test utterance of about 3 seconds."""
    pictures.save_curves(history, out / "curves.png")
    shown = min(corpus.test, key=lambda u: abs(u.samples / corpus.sample_rate - 3))
    waveform = shown.audio()
    logits = recogniser.listen(waveform)
    try:
        alignment = recogniser.align(logits, shown.text)
    except ValueError as error:
        print(f"no alignment.png of {shown.name}: {error}")
        return
    picture = out / "alignment.png"
    pictures.save_alignment(recogniser, waveform, logits, alignment, picture)


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
        best = Recogniser.load(args.out)
        report(best, corpus, args.beam)
        draw(best, corpus, history, args.out)
        print(f"the model and its pictures are in {args.out}")


def main(args: argparse.Namespace) -> None:
    if args.cpu:
        mx.set_default_device(mx.cpu)
    group = mx.distributed.init()
    if args.batch_size % group.size():
        sys.exit(
            f"--batch-size {args.batch_size} is no multiple of the number of "
            f"processes, {group.size()}"
        )
    on_linux_cpu = platform.system() == "Linux" and mx.default_device() == mx.cpu
    if on_linux_cpu and group.rank() == 0:
        hint_at_slow_matrix_products()
    try:
        run(args, group)
    except (AudioError, CorpusError, CheckpointError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt as stop:
        print(f"\nStopped. {stop}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main(parse_arguments())
