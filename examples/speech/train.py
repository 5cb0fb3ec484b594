# Training: a compiled step with its state, and the loop around it, which may be
# stopped at any time and shared by several processes.
# Letters: N utterances.

import json
import math
import signal
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import checkpoint
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from corpora import Corpus
from data import Batch, TrainingBatches
from evaluate import evaluate
from features import spec_augment
from mlx.utils import tree_map
from recogniser import Recogniser
from tqdm import tqdm

from mlx_ctc.nn import CTCLoss

# The arguments that a resumed run must share with the one that it continues.
RECIPE = (
    "corpus say text held_out_speaker characters bands channels blocks dtype "
    "steps batch_size learning_rate seed"
).split()


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
    flag and a batch's arrays, and returns three numbers (3,): the mean loss in nats per
    label, how many utterances were infeasible, that is, too short for their text, and
    the flag; each as the mean of all processes. The weights are float32; the network
    computes in ``dtype``."""
    model, features = recogniser.model, recogniser.features
    ctc_loss = CTCLoss(reduction="none", with_logits=True)

    def loss_of(parameters: dict, batch: Batch) -> tuple[mx.array, mx.array]:
        model.update(tree_map(lambda array: array.astype(dtype), parameters))
        inputs, lengths = features(batch.audio, batch.audio_lengths)
        inputs = spec_augment(inputs, lengths, batch.draws).astype(dtype)
        logits, lengths = model(inputs, lengths)
        losses = ctc_loss(logits, batch.targets, lengths, batch.target_lengths)
        infeasible = mx.isinf(losses)  # such an utterance's gradient is 0
        losses = mx.where(infeasible, 0, losses) / mx.maximum(batch.target_lengths, 1)
        return losses.mean(), infeasible.sum()

    state = [model.state, optimizer.state]

    @partial(mx.compile, inputs=state, outputs=state)
    def update(flag: mx.array, *arrays: mx.array) -> mx.array:
        parameters = model.trainable_parameters()
        value_and_grad = mx.value_and_grad(loss_of)
        (loss, infeasible), gradients = value_and_grad(parameters, Batch(*arrays))
        metrics = mx.stack([loss, infeasible, flag])
        means = nn.average_gradients({"all": gradients, "metrics": metrics}, group)
        gradients, _ = optim.clip_grad_norm(means["all"], max_norm=5.0)
        model.update(parameters)
        optimizer.update(model, gradients)
        return means["metrics"]

    return update, state


class Interruption:
    """Whether Ctrl-C was pressed. Pressed again, it interrupts as it always does."""

    def __enter__(self) -> "Interruption":
        self.wanted = False
        self.before = signal.signal(signal.SIGINT, self._want)
        return self

    def _want(self, number, frame):
        self.wanted = True
        signal.signal(signal.SIGINT, self.before)

    def __exit__(self, *exception):
        signal.signal(signal.SIGINT, self.before)


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0
    history: list[dict] = field(default_factory=list)  # an entry for each evaluation
    # Since the last one:
    losses: list[float] = field(default_factory=list)  # of each step, per label
    infeasible: int = 0  # utterances too short for their text


def train(
    corpus: Corpus,
    recogniser: Recogniser,
    args: Namespace,
    group: mx.distributed.Group,
) -> list[dict]:
    """Train, and keep in ``args.out`` the model that was best on ``corpus.dev``. Return
    the history, an entry for each evaluation. Of several processes the first evaluates,
    prints and writes. Ctrl-C ends with a checkpoint and a ``KeyboardInterrupt``."""
    first = group.rank() == 0
    model, optimizer = recogniser.model, make_optimizer(args.learning_rate, args.steps)
    optimizer.init(model.trainable_parameters())
    recipe = {name: getattr(args, name) for name in RECIPE}
    progress = Progress()
    file = args.out / "checkpoint.safetensors"
    if args.resume and first:
        progress = Progress(**checkpoint.load(file, recipe, model, optimizer))
    elif first:
        file.unlink(missing_ok=True)  # of another run
    checkpoint.share(model, optimizer, group)
    step = mx.distributed.all_sum(mx.array(progress.step), group=group).item()

    update, state = make_update(recogniser, optimizer, getattr(mx, args.dtype), group)
    batches = TrainingBatches(
        corpus,
        recogniser.alphabet,
        args.batch_size,
        args.seed,
        group.rank(),
        group.size(),
    )
    bar = tqdm(
        initial=step, total=args.steps, unit="step", mininterval=1, disable=not first
    )
    with bar, Interruption() as interruption:
        batch = batches[step]
        while step < args.steps:
            metrics = update(mx.array(float(interruption.wanted)), *batch)
            mx.async_eval(metrics, state)
            step += 1
            batch = batches[step]  # read while the device computes
            loss, infeasible, interrupted = metrics.tolist()
            if math.isnan(loss):
                sys.exit(f"The loss of step {step} is not a number.")
            if first:
                progress.step = step
                progress.losses.append(loss)
                progress.infeasible += round(infeasible * group.size())
                is_due = step % args.evaluate_every == 0 or step == args.steps
                if is_due:
                    bar.write(record(progress, corpus, recogniser, args.out))
                if is_due or interrupted:
                    checkpoint.save(file, recipe, model, optimizer, asdict(progress))
                show(bar, progress)
            if interrupted:
                raise KeyboardInterrupt("The same command with --resume goes on.")
    return progress.history


def record(
    progress: Progress, corpus: Corpus, recogniser: Recogniser, out: Path
) -> str:
    """Evaluate on ``corpus.dev``, and save the model if none was better. Return a line
    for the terminal; the history gets an entry."""
    [result] = evaluate(recogniser, corpus.dev)
    entry = {
        "step": progress.step,
        "loss": sum(progress.losses) / len(progress.losses),
        "cer": result.cer,
        "wer": result.wer,
        "infeasible": progress.infeasible,
        "losses": progress.losses,
    }
    if all(entry["cer"] <= before["cer"] for before in progress.history):
        recogniser.save(out)
    progress.history.append(entry)
    progress.losses, progress.infeasible = [], 0
    (out / "history.json").write_text(json.dumps(progress.history) + "\n")
    line = f"step {entry['step']:5}  loss {entry['loss']:6.3f}  dev {result}"
    if entry["infeasible"]:
        line += f"  {entry['infeasible']} utterances too short for their text"
    return line


def show(bar: tqdm, progress: Progress) -> None:
    """Move the bar one step on, with the mean of the last losses and the last CER."""
    recent = (progress.losses or progress.history[-1]["losses"])[-50:]
    shown = {"loss": f"{sum(recent) / len(recent):.3f}"}
    if progress.history:
        shown["CER"] = f"{100 * progress.history[-1]['cer']:.1f} %"
    bar.set_postfix(shown, refresh=False)
    bar.update()
