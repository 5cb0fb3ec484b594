# Train a small CTC speech recogniser and print its held-out error falling.

import argparse
import platform
import time
from functools import partial
from pathlib import Path

import corpora
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from data import Alphabet, Batches, collate
from evaluate import evaluate
from features import LogMel, spec_augment
from mlx.utils import tree_flatten
from model import SIZES, Recogniser
from tqdm import tqdm

from mlx_ctc.nn import CTCLoss

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, help="folder of the Free Spoken Digit Dataset")
parser.add_argument("--target", choices=("words", "digits"), default="words")
parser.add_argument("--held-out-speaker", metavar="NAME", help="train without a speaker, test on them")
parser.add_argument("--model", choices=SIZES, default="small")
parser.add_argument("--steps", type=int, default=1250)
parser.add_argument("--batch-size", type=int, default=8)
parser.add_argument("--learning-rate", type=float, default=3e-3)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--cpu", action="store_true", help="train on the CPU")


def matrix_product_speed() -> float:
    """GFLOP a second of a 512 x 512 matrix product."""
    a = mx.random.normal((512, 512))
    mx.eval(a @ a)
    start = time.perf_counter()
    mx.eval(a @ a)
    return 2e-9 * 512**3 / (time.perf_counter() - start)


def main(args):
    mx.random.seed(args.seed)
    speed = matrix_product_speed()
    if speed < 20:
        print(f"MLX multiplies matrices at {speed:.0f} GFLOP/s here")

    corpus = corpora.fsdd(args.data, args.target, args.held_out_speaker) if args.data else corpora.synthetic()
    alphabet = Alphabet(corpus.characters)
    features = LogMel(corpus.sample_rate)
    model = Recogniser(features.bands, len(alphabet), *SIZES[args.model])
    schedule = optim.join_schedules(
        [
            optim.linear_schedule(0, args.learning_rate, args.steps // 10),
            optim.cosine_decay(args.learning_rate, args.steps - args.steps // 10),
        ],
        [args.steps // 10],
    )
    optimizer = optim.AdamW(schedule, weight_decay=1e-2)
    loss = CTCLoss(with_logits=True, zero_infinity=True)
    mx.eval(model.parameters())
    print(corpus.description, len(corpus.train), len(corpus.test))
    print(sum(v.size for _, v in tree_flatten(model.parameters())))

    def batch_loss(batch):
        x, lengths = features(batch.audio, batch.audio_lengths)
        logits, lengths = model(spec_augment(x), lengths)
        return loss(logits.swapaxes(0, 1), batch.targets, lengths, batch.target_lengths)

    state = [model.state, optimizer.state, mx.random.state]

    @partial(mx.compile, inputs=state, outputs=state)
    def step(*arrays):
        from data import Batch
        value, gradients = nn.value_and_grad(model, batch_loss)(Batch(*arrays))
        gradients, _ = optim.clip_grad_norm(gradients, 5.0)
        optimizer.update(model, gradients)
        return value

    def recognise(audio, lengths):
        return model(*features(audio, lengths))

    batches = Batches(corpus.train, args.batch_size, args.seed)
    tic = time.perf_counter()
    lo=0
    for i in (bar := tqdm(range(args.steps), mininterval=2)):
        rng = np.random.default_rng((args.seed, i))
        b = collate(batches[i], alphabet, corpus.sample_rate, rng)
        v = step(b.audio, b.audio_lengths, b.targets, b.target_lengths)
        mx.eval(state)
        lo = 0.95*lo+0.05*v.item()
        bar.set_postfix(loss=f"{lo:.3f}")
        if (i + 1) % (args.steps // 8) == 0:
            bar.write(f"{i+1} {lo:.3f} {evaluate(recognise, corpus.test[:200], alphabet, corpus.sample_rate)}")
    s=evaluate(recognise, corpus.test, alphabet, corpus.sample_rate)
    print(s, time.perf_counter() - tic)


if __name__ == "__main__":
    args = parser.parse_args()
    if args.cpu:
        mx.set_default_device(mx.cpu)
    main(args)
