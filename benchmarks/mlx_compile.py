"""What mx.compile costs on the CPU: the same functions eager and compiled.

    python benchmarks/mlx_compile.py

Of these functions only the speech step calls mlx_ctc. Every line is a new process: the
first compiled run has an empty folder for the kernels that MLX compiles with g++, the
later run finds what the first has left. Printed are seconds of processor time, g++
included, which on an idle machine are those of a clock:

    first     the first call, with each shape
    later     the least of 20 later calls

and how many kernels g++ compiled.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

ROOT = Path(__file__).parent.parent


def speech_step(compiled):
    """The step of examples/speech/train.py, of noise: 16 utterances of 1 to 4 s."""
    sys.path.insert(0, str(ROOT / "examples" / "speech"))
    from data import Alphabet
    from features import LogMel
    from model import SIZES, Encoder
    from recogniser import Recogniser
    from train import make_optimizer, make_update

    if not compiled:
        mx.disable_compile()
    alphabet, features = Alphabet("abcdefghijklmnopqrstuvwxyz "), LogMel(16000)
    model = Encoder(classes=alphabet.classes, **SIZES["small"])
    optimizer = make_optimizer(3e-3, 100)
    optimizer.init(model.trainable_parameters())
    recogniser = Recogniser(model, alphabet, features)
    update, state = make_update(recogniser, optimizer)

    def batch(seconds):
        audio = mx.random.normal((16, 16000 * seconds))
        targets = mx.random.randint(1, alphabet.classes, (16, 8 * seconds))
        lengths = mx.full(16, 16000 * seconds), mx.full(16, 8 * seconds)
        draws = mx.random.uniform(shape=(16, 4))
        return audio, lengths[0], targets, lengths[1], draws

    def step(*arrays):
        return update(*arrays), state

    return step, [batch(seconds) for seconds in (1, 2, 3, 4)]


def batch_norm(compiled):
    """A step of a convolution with batch norm, whose means are over frames."""
    model = nn.Sequential(nn.Conv1d(80, 64, 3), nn.BatchNorm(64), nn.Linear(64, 32))
    optimizer = optim.Adam(1e-3)
    optimizer.init(model.trainable_parameters())
    state = [model.state, optimizer.state]
    value_and_grad = nn.value_and_grad(model, lambda x: model(x).square().mean())

    def update(x):
        value, gradients = value_and_grad(x)
        optimizer.update(model, gradients)
        return value

    if compiled:
        update = mx.compile(update, inputs=state, outputs=state)

    def step(x):
        return update(x), state

    return step, [(mx.random.normal((4, T, 80)),) for T in (100, 110, 120, 130)]


def loop(compiled, numbers):
    """A recurrent network over 100 frames, and its gradient, that ends each sequence
    at its length. ``numbers(T)[t]`` is t."""
    T, N, D = 100, 4, 64

    def total(weights, x, lengths):
        state, frames = mx.zeros((N, D)), numbers(T)
        for t in range(T):
            new = mx.tanh(state @ weights + x[t])
            state = mx.where((frames[t] < lengths)[:, None], new, state)
        return state.sum()

    lengths = mx.array([100, 90, 50, 10])
    inputs = mx.random.normal((D, D)) * D**-0.5, mx.random.normal((T, N, D)), lengths
    step = mx.value_and_grad(total)
    return (mx.compile(step) if compiled else step), [inputs]


def scaled(compiled, kept):
    """2000 x 512 numbers times the exponentials of 512, after ``kept``."""

    def product(x, log_scale):
        return x * kept(mx.exp(log_scale))

    inputs = mx.random.normal((2000, 512)), mx.random.normal((512,))
    return (mx.compile(product) if compiled else product), [inputs]


CASES = {
    "step of examples/speech, four shapes": speech_step,
    "step with batch norm, four shapes": batch_norm,
    "loop, frame numbers are ints": partial(loop, numbers=range),
    "loop, frame numbers in an array": partial(loop, numbers=mx.arange),
    "x * exp(scale)": partial(scaled, kept=lambda scale: scale),
    "x * contiguous(exp(scale))": partial(scaled, kept=mx.contiguous),
}
# Of each line: its name, and whether the function is compiled.
RUNS = {"eager": False, "first run": True, "later run": True}


def processor_time():
    """Seconds, of this process and of the compilers that it has called."""
    times = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(time.ru_utime + time.ru_stime for time in times)


def measure(case, compiled):
    """Seconds of the first call with each shape, and of the fastest later call."""
    mx.set_default_device(mx.cpu)
    mx.random.seed(0)
    function, batches = CASES[case](compiled)
    mx.eval(batches)

    def seconds(batch):
        begin = processor_time()
        mx.eval(function(*batch))
        return processor_time() - begin

    first = [seconds(batch) for batch in batches]
    later = min(seconds(batches[-1]) for _ in range(20))
    return {"first": first, "later": later}


def run(case, name, folder):
    """A line of the results, from a process whose kernels are in ``folder``."""
    before = len(list(Path(folder).rglob("*.so")))
    command = [sys.executable, __file__, "--measure", case, name]
    environment = os.environ | {"TMPDIR": folder}
    output = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, check=True
    ).stdout
    result = json.loads(output)
    first = " ".join(f"{value:.3f}" for value in result["first"])
    kernels = len(list(Path(folder).rglob("*.so"))) - before
    later = f"{result['later']:.5f}"
    return f"    {name:9}  first {first}  later {later}  kernels {kernels}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        case, name = args.measure
        print(json.dumps(measure(case, RUNS[name])))
        return
    print(f"MLX {mx.__version__}")
    for case in CASES:
        print(case)
        with TemporaryDirectory() as folder:
            for name in RUNS:
                print(run(case, name, folder), flush=True)


if __name__ == "__main__":
    main()
