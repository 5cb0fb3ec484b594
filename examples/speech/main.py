# Train a small CTC speech recogniser and watch its held-out error fall.

import argparse
import platform
import sys
import time
from functools import partial
from pathlib import Path

import corpora
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from data import Alphabet, Batch, TrainingBatches
from evaluate import Result, evaluate
from features import LogMel, spec_augment
from model import SIZES, Encoder
from paths import models_folder
from recogniser import Recogniser
from tqdm import tqdm

from mlx_ctc.nn import CTCLoss


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small CTC recogniser.")
    add = parser.add_argument
    add("--data", type=Path, help="the Free Spoken Digit Dataset's recordings")
    add("--held-out-speaker", metavar="NAME", help="test on this speaker of --data")
    add("--target", choices=["words", "digits"], default="words", help="what to write")
    add("--model", choices=SIZES, default="small", help="its size")
    add("--steps", type=int, default=1500)
    add("--batch-size", type=int, default=8)
    add("--learning-rate", type=float, default=3e-3)
    add("--evaluate-every", type=int, default=250, metavar="STEPS")
    add("--out", type=Path, metavar="FOLDER", help="where to save the model")
    add("--seed", type=int, default=0)
    add("--cpu", action="store_true", help="train on the CPU where there is a GPU")
    args = parser.parse_args(argv)
    if args.held_out_speaker and not args.data:
        parser.error("--held-out-speaker needs --data")
    if not args.out:
        corpus = "fsdd" if args.data else "synthetic"
        args.out = models_folder() / f"{corpus}-{args.target}-{args.model}"
    return args


def load_corpus(args: argparse.Namespace) -> corpora.Corpus:
    if args.data:
        corpus = corpora.fsdd(args.data, args.held_out_speaker)
    else:
        corpus = corpora.synthetic()
    return corpora.digits_as_symbols(corpus) if args.target == "digits" else corpus


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


def make_optimizer(learning_rate: float, steps: int) -> optim.Optimizer:
    """AdamW with a linear warm-up and a cosine decay."""
    warmup = steps // 10
    rise = optim.linear_schedule(0, learning_rate, max(warmup, 1))
    fall = optim.cosine_decay(learning_rate, steps - warmup)
    return optim.AdamW(optim.join_schedules([rise, fall], [warmup]))


def train(corpus: corpora.Corpus, args: argparse.Namespace) -> Result:
    mx.random.seed(args.seed)
    alphabet = Alphabet(corpus.characters)
    batches = TrainingBatches(corpus, alphabet, args.batch_size, args.seed)
    features = LogMel(corpus.sample_rate)
    model = Encoder(features.bands, alphabet.classes, **SIZES[args.model])
    recogniser = Recogniser(model, alphabet, features)
    optimizer = make_optimizer(args.learning_rate, args.steps)
    ctc_loss = CTCLoss(with_logits=True, zero_infinity=True)

    print(
        f"{corpus.description}: {len(corpus.train)} and {len(corpus.test)} utterances"
    )
    size = recogniser.parameters / 1e6
    print(f"{args.model} model: {size:.2f} M parameters, {mx.default_device()}")

    def loss_of(batch: Batch) -> mx.array:
        inputs, lengths = features(batch.audio, batch.audio_lengths)
        logits, lengths = model(spec_augment(inputs), lengths)
        return ctc_loss(logits, batch.targets, lengths, batch.target_lengths)

    state = [model.state, optimizer.state, mx.random.state]

    @partial(mx.compile, inputs=state, outputs=state)
    def update(*batch: mx.array) -> mx.array:
        loss, gradients = nn.value_and_grad(model, loss_of)(Batch(*batch))
        gradients, _ = optim.clip_grad_norm(gradients, max_norm=5.0)
        optimizer.update(model, gradients)
        return loss

    losses = []
    progress = tqdm(range(args.steps), unit="step")
    for step in progress:
        loss = update(*batches[step])
        mx.async_eval(loss, state)  # while the next batch is read
        losses.append(loss)
        done = step + 1
        if done % args.evaluate_every == 0 or done == args.steps:
            mean = mx.stack(losses).mean().item()
            result = evaluate(recogniser, corpus.test)
            progress.write(f"step {done:5}  loss {mean:6.3f}  held-out {result}")
            losses = []
    recogniser.save(args.out)
    print(f"the model is in {args.out}")
    return result


def main(args: argparse.Namespace):
    if args.cpu:
        mx.set_default_device(mx.cpu)
    if platform.system() == "Linux" and mx.default_device() == mx.cpu:
        hint_at_slow_matrix_products()
    corpus = load_corpus(args)
    start = time.perf_counter()
    result = train(corpus, args)
    print(f"trained in {time.perf_counter() - start:.0f} s")
    for i in range(0, len(result.references), 50):
        print(f"  said  {result.references[i]}\n  heard {result.transcripts[i]}")


if __name__ == "__main__":
    main(parse_arguments())
