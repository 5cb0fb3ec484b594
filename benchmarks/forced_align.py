"""mlx_ctc.forced_align compared with torchaudio and with a loop in NumPy.

The libraries take turns within one process. torchaudio, where it is installed, aligns
one sequence at a time, because it takes no batch. The NumPy loop goes over frames, with
all states of a sequence in one operation. `reading` is the part of it that reads the
scores of the labels, which every alignment needs. `one table` is the CPU's
forced_align without checkpoints: it keeps the moves of all frames.

    python benchmarks/forced_align.py
    python benchmarks/forced_align.py --only mlx-ctc "one table"
    python benchmarks/forced_align.py --device gpu --shapes 1500x32x64x150
"""

import argparse
import platform
import time
from importlib.util import find_spec
from statistics import median

import mlx.core as mx
import numpy as np

from mlx_ctc import _ext, forced_align

# T x N x C x S: frames, sequences, classes, labels.
SHAPES = ["500x32x32x50", "1500x32x64x150", "500x32x5000x50", "10000x1x32x1000"]


def numpy_align(log_probs, targets, blank=0):
    """Aligns log_probs (T, N, C). Returns paths (N, T) and scores (N, T)."""
    T, N, _ = log_probs.shape
    L = 2 * targets.shape[1] + 1
    paths = np.empty((N, T), np.int32)
    for n in range(N):
        states = np.full(L, blank)
        states[1::2] = targets[n]
        jump = np.full(L, -np.inf)
        jump[3::2][states[3::2] != states[1:-2:2]] = 0
        emissions = log_probs[:, n, states]
        best = np.full(L, -np.inf)
        best[:2] = emissions[0, :2]
        came_from = np.full((3, L), -np.inf)
        moves = np.zeros((T, L), np.int8)
        for t in range(1, T):
            came_from[0] = best
            came_from[1, 1:] = best[:-1]
            came_from[2, 2:] = best[:-2] + jump[2:]
            moves[t] = came_from.argmax(axis=0)
            best = came_from.max(axis=0) + emissions[t]
        s = L - 1 if best[-1] > best[-2] else L - 2
        for t in reversed(range(T)):
            paths[n, t] = states[s]
            s -= int(moves[t, s])
    return paths, np.take_along_axis(log_probs.swapaxes(0, 1), paths[..., None], 2)


def numpy_read(log_probs, targets):
    for n, labels in enumerate(targets):
        log_probs[:, n, labels]


def contenders(device, shape):
    """The functions to time by name, without arguments, each with its own arrays."""
    T, N, C, S = map(int, shape.split("x"))
    rng = np.random.default_rng(0)
    x = 2 * rng.standard_normal((T, N, C), np.float32)
    x -= np.log(np.exp(x).sum(axis=-1, keepdims=True))
    targets = rng.integers(1, C, (N, S), np.int32)

    lengths = np.full(N, T, np.int32), np.full(N, S, np.int32)
    arrays = [mx.array(a) for a in (x, targets, *lengths)]
    mx.eval(arrays)

    def one_table():
        mx.eval(_ext.forced_align(*arrays, 0, with_logits=False, segment_frames=T))

    result = {"mlx-ctc": lambda: mx.eval(forced_align(*arrays))}
    if device == "cpu":
        result["one table"] = one_table
        result["NumPy"] = lambda: numpy_align(x, targets)
        result["reading"] = lambda: numpy_read(x, targets)
    if find_spec("torchaudio"):
        import torch
        from torchaudio.functional import forced_align as torchaudio_align

        on = "cuda" if device == "gpu" else "cpu"
        log_probs = torch.from_numpy(x).to(on).swapaxes(0, 1).contiguous()
        labels = torch.from_numpy(targets).to(on)

        def torchaudio():
            for n in range(N):
                torchaudio_align(log_probs[n : n + 1], labels[n : n + 1])
            if on == "cuda":
                torch.cuda.synchronize()

        result["torchaudio"] = torchaudio
    return result


def seconds(functions, rounds):
    """The median time of each function. They alternate, after one run of each."""
    times = {name: [] for name in functions}
    for i in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if i > 0:
                times[name].append(time.perf_counter() - start)
    return {name: median(t) for name, t in times.items()}


parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="TxNxCxS")
parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--only", nargs="+", metavar="NAME", help="of mlx-ctc and these")
args = parser.parse_args()
mx.set_default_device(mx.gpu if args.device == "gpu" else mx.cpu)

print(f"{platform.machine()}, {args.device}, MLX {mx.__version__}")
for shape in args.shapes:
    functions = contenders(args.device, shape)
    if args.only:
        kept = {"mlx-ctc", *args.only}
        functions = {name: f for name, f in functions.items() if name in kept}
    times = seconds(functions, args.rounds)
    ours = times["mlx-ctc"]
    row = [f"{name} {1e3 * t:9.2f} ms ({t / ours:6.1f}x)" for name, t in times.items()]
    print(f"{shape:>18}  " + "   ".join(row))
