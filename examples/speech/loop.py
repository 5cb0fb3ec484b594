# The loop around the step of train.py: it evaluates, keeps the best model, may be
# stopped at any time and be shared by several processes.

import json
import math
import signal
import sys
from argparse import Namespace
from dataclasses import asdict, dataclass, field
from pathlib import Path

import checkpoint
import mlx.core as mx
from corpora import Corpus
from data import TrainingBatches
from evaluate import evaluate
from recogniser import Recogniser
from tqdm import tqdm
from train import make_optimizer, make_update

# The arguments that a resumed run must share with the one that it continues.
RECIPE = (
    "corpus say text held_out_speaker characters bands channels blocks dtype "
    "steps batch_size learning_rate seed"
).split()


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
            metrics = update(*batch)
            wanted = mx.array(float(interruption.wanted))
            stops = mx.distributed.all_sum(wanted, group=group)  # of all processes
            mx.async_eval(metrics, stops, state)
            step += 1
            batch = batches[step]  # read while the device computes
            loss, infeasible = metrics.tolist()
            interrupted = stops.item() > 0
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
