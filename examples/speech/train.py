# What it takes to train a model with CTC: the loss of a batch, an optimizer, a compiled
# step. Copy this file, and put your model and your batches in place of model.py and
# data.py. Run as it is, it learns digits from synthesised speech; main.py trains with
# the same step, in the loop of loop.py.
# Letters: T frames, N utterances, C classes.

from collections.abc import Callable
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from corpora import synthetic
from data import Alphabet, Batch, TrainingBatches
from features import LogMel, spec_augment
from mlx.utils import tree_map
from model import Encoder
from recogniser import Recogniser

from mlx_ctc.nn import CTCLoss

# Of logits (T, N, C). For a model whose outputs are (N, T, C): batch_first=True.
ctc_loss = CTCLoss(reduction="none", with_logits=True)


def loss_of(
    recogniser: Recogniser, batch: Batch, dtype: mx.Dtype
) -> tuple[mx.array, mx.array]:
    """The mean loss in nats per label, and how many utterances are infeasible, that
    is, too short for their text."""
    inputs, lengths = recogniser.features(batch.audio, batch.audio_lengths)
    inputs = spec_augment(inputs, lengths, batch.draws).astype(dtype)
    logits, lengths = recogniser.model(inputs, lengths)  # lengths after subsampling
    losses = ctc_loss(logits, batch.targets, lengths, batch.target_lengths)
    infeasible = mx.isinf(losses)  # such an utterance's gradient is 0
    losses = mx.where(infeasible, 0, losses) / mx.maximum(batch.target_lengths, 1)
    return losses.mean(), infeasible.sum()


def make_optimizer(learning_rate: float, steps: int) -> optim.Optimizer:
    """AdamW with a linear warm-up and a cosine decay."""
    warmup = steps // 10
    rise = optim.linear_schedule(0, learning_rate, max(warmup, 1))
    fall = optim.cosine_decay(learning_rate, steps - warmup)
    return optim.AdamW(optim.join_schedules([rise, fall], [warmup]))


def make_update(
    recogniser: Recogniser,
    optimizer: optim.Optimizer,
    dtype: mx.Dtype,
    group: mx.distributed.Group,
) -> tuple[Callable[..., mx.array], list]:
    """A function that learns from one batch, and the state that it changes. It takes a
    flag and a batch's arrays, and returns three numbers (3,): the loss, the number of
    infeasible utterances and the flag, each as the mean of all processes. The weights
    are float32; the network computes in ``dtype``."""
    model = recogniser.model
    state = [model.state, optimizer.state]

    def losses_at(parameters: dict, batch: Batch) -> tuple[mx.array, mx.array]:
        model.update(tree_map(lambda array: array.astype(dtype), parameters))
        return loss_of(recogniser, batch, dtype)

    @partial(mx.compile, inputs=state, outputs=state)
    def update(flag: mx.array, *arrays: mx.array) -> mx.array:
        parameters = model.trainable_parameters()
        value_and_grad = mx.value_and_grad(losses_at)
        metrics, gradients = value_and_grad(parameters, Batch(*arrays))
        metrics = mx.stack([*metrics, flag])
        means = nn.average_gradients({"all": gradients, "metrics": metrics}, group)
        gradients, _ = optim.clip_grad_norm(means["all"], max_norm=5.0)
        model.update(parameters)
        optimizer.update(model, gradients)
        return means["metrics"]

    return update, state


def main(steps: int = 500) -> None:
    corpus = synthetic.load()
    alphabet, features = Alphabet(corpus.characters), LogMel(corpus.sample_rate)
    model = Encoder(features.bands, alphabet.classes, channels=80, blocks=8)
    recogniser = Recogniser(model, alphabet, features)
    optimizer = make_optimizer(3e-3, steps)
    optimizer.init(model.trainable_parameters())
    update, state = make_update(
        recogniser, optimizer, mx.float32, mx.distributed.init()
    )
    batches = TrainingBatches(corpus, alphabet, size=16, seed=0)
    losses = []
    for step in range(1, steps + 1):
        metrics = update(mx.array(0.0), *batches[step])
        mx.eval(metrics, state)
        losses.append(metrics[0].item())
        if step % 50 == 0:
            print(f"step {step:4}  loss {sum(losses[-50:]) / 50:.3f}", flush=True)
    heard = recogniser.listen(corpus.test[0].audio())[:, None]
    print(f"said  {corpus.test[0].text}")
    print(f"heard {recogniser.transcripts(heard, [len(heard)])[0]}")


if __name__ == "__main__":
    main()
