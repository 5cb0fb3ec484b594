"""mlx_ctc compared with torch: logits to loss, and to loss and gradient.

The libraries take turns within one process, so that other load affects both. On the CPU
a turn begins with a pause in which the other library's threads go to sleep. Ratios are
computed for each turn; their median is shown with the minimum and the maximum. Every
number of threads, and every peak of memory on the CPU, is measured in a new process.

A turn is about 50 ms of steps, which find what they use in the caches. With --cold the
libraries alternate step by step, each after memory larger than the last cache has been
written: neither data nor code are in the caches then, as after a model's forward pass.
A turn's time is the median of its steps. --ragged draws lengths as batches of
recordings have them.

    python benchmarks/ctc_loss.py --threads 1,2
    python benchmarks/ctc_loss.py --threads 1,2 --cold --ragged
    python benchmarks/ctc_loss.py --shapes 512x32x64x100 --tasks gradient --times
    python benchmarks/ctc_loss.py --device gpu --json results.json
    python benchmarks/ctc_loss.py --growth --turns 3

On a GPU the records have a lower bound, "floor": three passes over the logits at the
bandwidth of a copy in the same process, plus 0.1 us per frame.
"""

import argparse
import json
import os
import platform
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np

MiB = 2**20

# T x N x C x S: frames, sequences, classes, labels.
SHAPES = {
    "cpu": [
        "64x128x32x16",
        "128x128x32x32",
        "256x128x32x64",
        "512x128x32x128",
        "1024x128x32x256",
        "128x32x32x32",
        "128x64x32x32",
        "128x256x32x32",
        "128x512x32x32",
        "128x128x8x32",
        "128x128x16x32",
        "128x128x48x32",
        "128x128x64x32",
        "150x32x5000x40",
    ]
}
SHAPES["gpu"] = [
    *SHAPES["cpu"],
    "1000x64x128x100",
    "2000x16x32x200",
    "1500x32x5000x80",
    "400x256x80x120",
]

# One dimension grows over three decades, the others are fixed.
GROWTH = {
    "T": [f"{T}x4x32x16" for T in (64, 200, 640, 2000, 6400, 20000, 64000)],
    "N": [f"128x{N}x32x32" for N in (1, 3, 10, 30, 100, 300, 1000)],
    "S": [f"8192x1x32x{S}" for S in (4, 12, 40, 120, 400, 1200, 4000)],
}

TASKS = {"gradient": "loss and gradient", "loss": "loss"}  # name: what is said of it
CUDNN_LABELS = 256  # the longest target that cuDNN takes


@dataclass
class Case:
    shape: str
    device: str
    dtype: str
    threads: int
    growth: str = ""  # the dimension that grows, if the shape is part of a curve
    ragged: bool = False  # lengths from T / 2 to T and from S / 2 to S, else full ones
    cold: bool = False  # whether the caches are swept before each step

    def arrays(self):
        """Random logits and targets, and lengths, in NumPy."""
        T, N, C, S = map(int, self.shape.split("x"))
        rng = np.random.default_rng(0)

        def lengths(most):
            least = most // 2 if self.ragged else most
            return rng.integers(least, most, N, np.int32, endpoint=True)

        return (
            rng.standard_normal((T, N, C), np.float32),
            rng.integers(1, C, (N, S), np.int32),
            lengths(T),
            lengths(S),
        )


class Ours:
    def __init__(self, case, compiled=False):
        import mlx.core as mx

        from mlx_ctc import ctc_loss

        mx.set_default_device(getattr(mx, case.device))
        self.mx = mx
        logits, *rest = map(mx.array, case.arrays())
        self.logits = logits.astype(getattr(mx, case.dtype))

        def loss(logits):
            return ctc_loss(logits, *rest, reduction="sum", with_logits=True)

        self.tasks = {"gradient": mx.value_and_grad(loss), "loss": loss}
        if compiled:
            self.tasks = {task: mx.compile(f) for task, f in self.tasks.items()}
        mx.eval(self.logits, rest)

    def step(self, task):
        self.mx.eval(self.tasks[task](self.logits))

    def queue(self, task, steps):
        start = time.perf_counter()
        for _ in range(steps):
            self.mx.async_eval(self.tasks[task](self.logits))
        self.mx.synchronize()
        return (time.perf_counter() - start) / steps

    def gpu_memory(self, task):
        self.mx.synchronize()  # until MLX's thread has freed the last step's arrays
        before = self.mx.get_active_memory()
        self.mx.reset_peak_memory()
        self.step(task)
        return self.mx.get_peak_memory() - before


class OursCompiled(Ours):
    def __init__(self, case):
        super().__init__(case, compiled=True)


class Torch:
    def __init__(self, case):
        import torch

        torch.set_num_threads(case.threads)
        self.torch = torch
        self.device = {"cpu": "cpu", "gpu": "cuda"}[case.device]
        logits, targets, *lengths = map(torch.tensor, case.arrays())
        self.logits = logits.to(self.device, getattr(torch, case.dtype))
        self.logits.requires_grad_()
        self.rest = self.to_targets(targets), *lengths

    def to_targets(self, targets):
        return targets.to(self.device, self.torch.int64)

    def enqueue(self, task):
        functional = self.torch.nn.functional
        with self.torch.set_grad_enabled(task == "gradient"):
            log_probs = self.logits.log_softmax(-1, dtype=self.torch.float32)
            loss = functional.ctc_loss(log_probs, *self.rest, reduction="sum")
        if task == "gradient":
            self.torch.autograd.grad(loss, self.logits)

    def step(self, task):
        self.enqueue(task)
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def queue(self, task, steps):
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(steps):
            self.enqueue(task)
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / steps

    def gpu_memory(self, task):
        cuda = self.torch.cuda
        before = cuda.memory_allocated()
        cuda.reset_peak_memory_stats()
        self.step(task)
        return cuda.max_memory_allocated() - before


class TorchCuDNN(Torch):
    """Concatenated int32 targets in host memory make torch call cuDNN."""

    def to_targets(self, targets):
        return targets.reshape(-1)


LIBRARIES = {
    "ours": Ours,
    "ours compiled": OursCompiled,
    "torch": Torch,
    "cudnn": TorchCuDNN,
}


def libraries_here(case):
    names = ["ours"] if case.device == "cpu" else ["ours", "ours compiled"]
    if find_spec("torch"):
        names += ["torch"]
        longest = case.arrays()[3].max()
        if case.device == "gpu" and longest <= CUDNN_LABELS:
            names += ["cudnn"]
    return names


def timed(step, steps=1):
    """The seconds per step."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start) / steps


def warm_turns(steps, pause):
    """For each library a function that runs its step for about 50 ms.

    It returns the seconds per step. `steps` are functions by the libraries' names.
    """

    def turn_of(step):
        step()  # warm-up
        count = max(1, int(0.05 / timed(step)))

        def turn():
            time.sleep(pause)
            return timed(step, count)

        return turn

    turns = {name: turn_of(step) for name, step in steps.items()}
    return lambda: {name: turn() for name, turn in turns.items()}


def last_cache():
    """Bytes of this machine's largest cache; 64 MiB if the system does not say."""
    folder = Path("/sys/devices/system/cpu/cpu0/cache")
    units = {"K": 2**10, "M": 2**20}
    sizes = [file.read_text().strip() for file in folder.glob("index*/size")]
    return max((int(size[:-1]) * units[size[-1]] for size in sizes), default=64 * MiB)


def cold_turns(steps, pause):
    """As warm_turns(), but the libraries alternate, with a sweep before each step."""
    memory = np.zeros(2 * last_cache(), np.uint8)

    def cold(step):
        time.sleep(pause)
        np.add(memory, 1, out=memory)
        return timed(step)

    for step in steps.values():
        step()  # warm-up
    count = min(max(3, int(0.5 / timed(lambda: [*map(cold, steps.values())]))), 15)

    def turn():
        pairs = [
            {name: cold(step) for name, step in steps.items()} for _ in range(count)
        ]
        return {name: median(pair[name] for pair in pairs) for name in steps}

    return turn


def gpu_floor(case):
    """An approximate lower bound of the seconds per step on this GPU."""
    import mlx.core as mx

    mx.set_default_device(mx.gpu)
    x, copies = mx.zeros(2**26), 20
    for _ in range(2):  # the first is a warm-up
        mx.eval(x)
        start = time.perf_counter()
        for _ in range(copies):
            mx.async_eval(x + 0)
        mx.synchronize()
        seconds = (time.perf_counter() - start) / copies
    bandwidth = 2 * x.nbytes / seconds
    T, N, C, _ = map(int, case.shape.split("x"))
    pass_bytes = T * N * C * getattr(mx, case.dtype).size
    return 3 * pass_bytes / bandwidth + T * 1e-7


def measure_time(case, options):
    """A record for each task: the seconds per step of each library and turn."""
    runners = {name: LIBRARIES[name](case) for name in libraries_here(case)}
    if options.cache is not None:
        runners["ours"].mx.set_cache_limit(options.cache * MiB)
    # torch's OpenMP threads spin for 15 ms after a loop.
    pause = 0.03 if case.device == "cpu" and case.threads > 1 else 0
    turns = cold_turns if case.cold else warm_turns
    records = []
    for task in options.tasks:
        steps = {name: partial(runner.step, task) for name, runner in runners.items()}
        turn = turns(steps, pause)
        record = {**asdict(case), "task": task, "memory": {}}
        record["seconds"] = {name: [] for name in runners}
        record["queued seconds"] = {name: [] for name in runners}
        for _ in range(options.turns):
            for name, seconds in turn().items():
                record["seconds"][name].append(seconds)
            for name, runner in runners.items():
                if case.device == "gpu":
                    seconds = runner.queue(task, steps=20)
                    record["queued seconds"][name].append(seconds)
        if case.device == "gpu":
            record["memory"] = {n: r.gpu_memory(task) for n, r in runners.items()}
            record["floor"] = gpu_floor(case)
        records.append(record)
    return records


class ResidentMemory:
    """Resident bytes of this process, and their peak since the last reset.

    Without /proc the peak is that since the process began, an upper bound.
    """

    status, clear_refs = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def reset(self):
        if self.clear_refs.exists():
            self.clear_refs.write_text("5")
        return self.read("VmRSS")

    def peak(self):
        return self.read("VmHWM")

    def read(self, what):
        if self.status.exists():
            found = re.search(rf"{what}:\s*(\d+) kB", self.status.read_text())
            return int(found[1]) * 1024
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure_memory(name, case, task):
    """Peak bytes of a step beyond its inputs, in a new process."""
    LIBRARIES[name](replace(case, shape="10x2x5x3")).step(task)
    runner, memory = LIBRARIES[name](case), ResidentMemory()
    before = memory.reset()
    runner.step(task)
    return memory.peak() - before


def new_process(threads):
    """A process whose libraries use this number of threads."""
    os.environ["MLX_CTC_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(threads)
    return ProcessPoolExecutor(1, get_context("spawn"))


def measure(options):
    for threads in options.threads:
        with new_process(threads) as timing:
            for growth, shape in options.shapes:
                case = Case(
                    shape,
                    options.device,
                    options.dtype,
                    threads,
                    growth,
                    options.ragged,
                    options.cold,
                )
                for record in timing.submit(measure_time, case, options).result():
                    if options.device == "cpu" and options.memory:
                        for name in record["seconds"]:
                            with new_process(threads) as p:
                                job = measure_memory, name, case, record["task"]
                                record["memory"][name] = p.submit(*job).result()
                    yield record


def compact(value):
    """A record without empty fields, and with numbers of five digits."""
    if isinstance(value, dict):
        items = {name: compact(item) for name, item in value.items()}
        return {name: item for name, item in items.items() if item not in ("", [], {})}
    if isinstance(value, list):
        return [compact(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def write_report(path, report):
    """JSON with one record a line."""
    lines = [json.dumps(compact(record)) for record in report["records"]]
    head = json.dumps({**report, "records": []}, indent=1).removesuffix("[]\n}")
    path.write_text(head + "[\n" + ",\n".join(lines) + "\n]}\n")


def ratios(seconds, rival):
    """The rival's time divided by ours, for each turn."""
    return [b / a for a, b in zip(seconds["ours"], seconds[rival], strict=True)]


def spaced(shape):
    return shape.replace("x", " x ")


def cells(record, options):
    """The record's row of the table: column name to text."""
    row = {"T x N x C x S": record["shape"], "threads": record["threads"]}
    row["task"] = record["task"]
    for timing in "seconds", "queued seconds":
        seconds = record[timing]
        for name in seconds:
            kind = timing.removesuffix("seconds")
            if not seconds[name]:
                continue
            if name != "ours":
                turns = ratios(seconds, name)
                spread = f"({min(turns):.1f}-{max(turns):.1f})"
                row[f"{kind}{name} / ours"] = f"{median(turns):.1f} {spread}"
            if options.times or len(seconds) == 1:
                row[f"{kind}{name} ms"] = f"{1e3 * median(seconds[name]):.3f}"
    if "floor" in record:
        row["floor ms"] = f"{1e3 * record['floor']:.3f}"
    for name, peak in record["memory"].items():
        row[f"{name} MiB"] = f"{peak / MiB:.1f}"
    return row


def print_row(texts, width=16):
    print("  ".join(f"{text!s:>{width}}" for text in texts), flush=True)


def print_medians(records):
    for threads in sorted({record["threads"] for record in records}):
        for task in TASKS:
            of_shapes = [
                median(ratios(record["seconds"], "torch"))
                for record in records
                if (record["threads"], record["task"]) == (threads, task)
                and "torch" in record["seconds"]
                and not record["growth"]
            ]
            if of_shapes:
                print(
                    f"{task}, {threads} threads: torch / ours {median(of_shapes):.1f} "
                    f"in the median of {len(of_shapes)} shapes, "
                    f"{min(of_shapes):.1f} at least"
                )


def machine(device):
    """The hardware and the versions of the software."""
    import mlx.core as mx

    gpu = {"gpu": mx.device_info(mx.gpu)["device_name"]} if device == "gpu" else {}
    processor = platform.processor()
    if (info := Path("/proc/cpuinfo")).exists():
        names = re.findall(r"model name\s*: (.*)", info.read_text())
        processor = f"{len(names)} x {names[0]}" if names else processor
    packages = {"mlx-ctc": "mlx_ctc", "mlx": "mlx", "torch": "torch"}
    versions = {name: version(name) for name in packages if find_spec(packages[name])}
    return {
        **gpu,
        "processor": processor,
        "system": f"{platform.system()} {platform.machine()}",
        **versions,
    }


def parse_options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--shapes", help="TxNxCxS, several with commas between; default: a list")
    add("--growth", action="store_true", help="shapes in which T, N or S grows")
    add("--device", choices=["cpu", "gpu"], default="cpu")
    add("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    add("--threads", default=str(os.cpu_count()), help="CPU threads, as 1,2")
    add("--tasks", default=",".join(TASKS), help=f"of {[*TASKS]}; default: all")
    add("--turns", type=int, default=7, help="turns of each library (default: 7)")
    add("--cold", action="store_true", help="sweep the caches before each step")
    add("--ragged", action="store_true", help="lengths from T/2 to T and S/2 to S")
    add("--no-memory", dest="memory", action="store_false", help="leave out the peaks")
    add("--cache", type=int, metavar="MIB", help="what MLX keeps of freed memory")
    add("--times", action="store_true", help="show milliseconds as well as ratios")
    add("--json", metavar="FILE", help="write every turn of every shape to a file")
    options = parser.parse_args()
    shapes = options.shapes.split(",") if options.shapes else SHAPES[options.device]
    options.shapes = [("", shape) for shape in shapes]
    if options.growth:
        options.shapes = [(key, x) for key, curve in GROWTH.items() for x in curve]
    options.threads = [int(threads) for threads in options.threads.split(",")]
    options.tasks = options.tasks.split(",")
    return options


def main():
    options = parse_options()
    records = []
    if options.json:
        report = {
            "machine": machine(options.device),
            "command": sys.argv,
            "records": records,
        }
    for record in measure(options):
        row = cells(record, options)
        if not records:
            columns = list(row)
            print_row(columns)
        print_row(row.get(column, "") for column in columns)
        records.append(record)
        if options.json:  # after every record, so that an interruption loses little
            write_report(Path(options.json), report)
    print_medians(records)


if __name__ == "__main__":
    main()
