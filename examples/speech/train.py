# What it takes to train a model with CTC, and the file to copy: put your model and your
# batches in place of model.py and data.py. The core is loss_of and the compiled step in
# make_update. Run as it is, it learns digits from synthesised speech; main.py trains
# with the same step, in the loop of loop.py.
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


def make_update(
    recogniser: Recogniser,
    optimizer: optim.Optimizer,
    dtype: mx.Dtype = mx.float32,
    group: mx.distributed.Group | None = None,
) -> tuple[Callable[..., mx.array], list]:
    """A function that learns from the arrays of a batch and returns what ``loss_of`` it
    is, as an array (2,); and the state that it changes. The weights are float32; the
    network computes in ``dtype``. Gradients and results are the means of all processes
    of the group."""
    model = recogniser.model
    state = [model.state, optimizer.state]

    def losses_at(parameters: dict, batch: Batch) -> tuple[mx.array, mx.array]:
        model.update(tree_map(lambda array: array.astype(dtype), parameters))
        return loss_of(recogniser, batch, dtype)

    @partial(mx.compile, inputs=state, outputs=state)
    def update(*arrays: mx.array) -> mx.array:
        parameters = model.trainable_parameters()
        metrics, gradients = mx.value_and_grad(losses_at)(parameters, Batch(*arrays))
        means = {"gradients": gradients, "metrics": mx.stack(metrics)}
        means = nn.average_gradients(means, group)
        gradients, _ = optim.clip_grad_norm(means["gradients"], max_norm=5.0)
        model.update(parameters)
        optimizer.update(model, gradients)
        return means["metrics"]

    return update, state


def make_optimizer(learning_rate: float, steps: int) -> optim.Optimizer:
    """AdamW with a linear warm-up and a cosine decay."""
    warmup = steps // 10
    rise = optim.linear_schedule(0, learning_rate, max(warmup, 1))
    fall = optim.cosine_decay(learning_rate, steps - warmup)
    return optim.AdamW(optim.join_schedules([rise, fall], [warmup]))


def main(steps: int = 500) -> None:
    corpus = synthetic.load()
    alphabet, features = Alphabet(corpus.characters), LogMel(corpus.sample_rate)
    model = Encoder(features.bands, alphabet.classes, channels=80, blocks=8)
    recogniser = Recogniser(model, alphabet, features)
    optimizer = make_optimizer(3e-3, steps)
    optimizer.init(model.trainable_parameters())
    update, state = make_update(recogniser, optimizer)
    batches = TrainingBatches(corpus, alphabet, size=16, seed=0)
    losses = []
    for step in range(1, steps + 1):
        metrics = update(*batches[step])
        mx.eval(metrics, state)
        losses.append(metrics[0].item())
        if step % 50 == 0:
            print(f"step {step:4}  loss {sum(losses[-50:]) / 50:.3f}", flush=True)
    heard = recogniser.listen(corpus.test[0].audio())[:, None]
    print(f"said  {corpus.test[0].text}")
    print(f"heard {recogniser.transcripts(heard, [len(heard)])[0]}")


if __name__ == "__main__":
    main()
