# What it takes to train a model with CTC: the loss of a batch, an optimizer, a step, a
# loop. Copy this file, and put your model and your batches in place of model.py and
# data.py. main.py is the command.

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from data import Batch, Batches
from model import LineNetwork

from mlx_ctc.nn import CTCLoss

# Of logits (N, T, C). Targets are lists of labels, of any lengths.
ctc_loss = CTCLoss(with_logits=True, batch_first=True)


def loss_of(model: LineNetwork, batch: Batch) -> mx.array:
    """The mean loss of the lines, each in nats per character."""
    logits, lengths = model(batch.images, batch.widths)  # lengths in frames
    return ctc_loss(logits, batch.targets, lengths)


def make_optimizer(learning_rate: float, steps: int) -> optim.Optimizer:
    """AdamW with a linear warm-up and a cosine decay."""
    warmup = max(steps // 10, 1)
    rise = optim.linear_schedule(0, learning_rate, warmup)
    fall = optim.cosine_decay(learning_rate, max(steps - warmup, 1))
    return optim.AdamW(optim.join_schedules([rise, fall], [warmup]))


def make_update(
    model: LineNetwork, optimizer: optim.Optimizer
) -> Callable[[Batch], mx.array]:
    """A function that learns from one batch and returns its loss, not yet evaluated."""
    value_and_grad = nn.value_and_grad(model, lambda batch: loss_of(model, batch))

    def update(batch: Batch) -> mx.array:
        loss, gradients = value_and_grad(batch)
        gradients, _ = optim.clip_grad_norm(gradients, max_norm=5.0)
        optimizer.update(model, gradients)
        return loss

    return update


def train(
    model: LineNetwork, batches: Batches, steps: int, learning_rate: float
) -> list[float]:
    """Train, print the mean loss ten times, and return the loss of each step."""
    optimizer = make_optimizer(learning_rate, steps)
    update = make_update(model, optimizer)
    model.train()
    losses, shown = [], max(steps // 10, 1)
    batch = batches[0]
    for step in range(1, steps + 1):
        loss = update(batch)
        mx.async_eval(loss, model.parameters(), optimizer.state)
        batch = batches[step]  # drawn while the device computes
        losses.append(loss.item())
        if step % shown == 0:
            mean = sum(losses[-shown:]) / shown
            print(f"step {step:5}  loss {mean:6.3f}", flush=True)
    model.eval()
    return losses
