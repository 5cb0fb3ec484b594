# Training: a compiled step with its state, and the loop around it, which may be
# stopped at any time and shared by several processes.
# Letters: N utterances.

import json
import math
import signal
import sys
from argparse import Namespace
from collections.abc import Callable
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
    batch's arrays and a flag, and returns the mean loss per label, how many utterances
    were too short for their text, and the flag; each as the mean of all processes. The
    weights are float32; the network computes in ``dtype``."""
    model, features = recogniser.model, recogniser.features
    ctc_loss = CTCLoss(reduction="none", with_logits=True)

    def loss_of(parameters: dict, batch: Batch) -> tuple[mx.array, mx.array]:
        model.update(tree_map(lambda array: array.astype(dtype), parameters))
        inputs, lengths = features(batch.audio, batch.audio_lengths)
        inputs = spec_augment(inputs, lengths, batch.masks).astype(dtype)
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


def train(
    corpus: Corpus,
    recogniser: Recogniser,
    args: Namespace,
    group: mx.distributed.Group,
) -> list[dict]:
    """Train, and keep in ``args.out`` the model that was best on ``corpus.dev``. Return
    the history, a line for each evaluation. Of several processes the first evaluates,
    prints and writes. Ctrl-C ends with a checkpoint and a ``KeyboardInterrupt``."""
    first = group.rank() == 0
    optimizer = make_optimizer(args.learning_rate, args.steps)
    optimizer.init(recogniser.model.trainable_parameters())
    recipe = {name: getattr(args, name) for name in RECIPE}
    progress = {
        "recipe": recipe,
        "step": 0,
        "losses": [],
        "too_short": 0,
        "history": [],
    }
    file = args.out / "checkpoint.safetensors"
    if args.resume and first:
        progress = resumed(file, recipe, recogniser.model, optimizer)
    elif first:
        file.unlink(missing_ok=True)  # of another run
    checkpoint.share(recogniser.model, optimizer, group)
    step = mx.distributed.all_sum(mx.array(progress["step"]), group=group).item()

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
            loss, too_short, interrupted = metrics.tolist()
            if math.isnan(loss):
                sys.exit(f"The loss of step {step} is not a number.")
            if first:
                progress["step"] = step
                progress["losses"].append(loss)
                progress["too_short"] += round(too_short * group.size())
                at_line = step % args.evaluate_every == 0 or step == args.steps
                if at_line:
                    add_line(progress, corpus, recogniser, args.out, bar)
                if at_line or interrupted:
                    checkpoint.save(file, recogniser.model, optimizer, progress)
                show(bar, progress)
            if interrupted:
                raise KeyboardInterrupt
    return progress["history"]


def resumed(
    file: Path, recipe: dict, model: nn.Module, optimizer: optim.Optimizer
) -> dict:
    """The progress of the run that ``file`` has, which was begun with this recipe."""
    progress = checkpoint.load(file, model, optimizer)
    for name, value in recipe.items():
        before = progress["recipe"].get(name)
        if before != value:
            raise checkpoint.CheckpointError(
                f"{file} was begun with {name} {before}, not {value}."
            )
    return progress


def add_line(
    progress: dict, corpus: Corpus, recogniser: Recogniser, out: Path, bar: tqdm
) -> None:
    """Evaluate on ``corpus.dev``; save the model if there was no better one; add a line
    to the history, on the terminal and in the file."""
    result = evaluate(recogniser, corpus.dev)
    history, losses = progress["history"], progress["losses"]
    if all(result.cer <= line["cer"] for line in history):
        recogniser.save(out)
    line = {
        "step": progress["step"],
        "loss": sum(losses) / len(losses),
        "cer": result.cer,
        "wer": result.wer,
        "too_short": progress["too_short"],
        "losses": losses,
    }
    history.append(line)
    progress.update(losses=[], too_short=0)
    (out / "history.json").write_text(json.dumps(history) + "\n")
    text = f"step {line['step']:5}  loss {line['loss']:6.3f}  dev {result}"
    if line["too_short"]:
        text += f"  {line['too_short']} utterances shorter than their text"
    bar.write(text)


def show(bar: tqdm, progress: dict) -> None:
    recent = (progress["losses"] or progress["history"][-1]["losses"])[-50:]
    shown = {"loss": f"{sum(recent) / len(recent):.3f}"}
    if progress["history"]:
        shown["CER"] = f"{100 * progress['history'][-1]['cer']:.1f} %"
    bar.set_postfix(shown, refresh=False)
    bar.update()
