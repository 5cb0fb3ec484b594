"""Writes the measured figures of README.md, docs/performance.md and docs/numerics.md.

    python benchmarks/table.py            # rewrites what is out of date
    python benchmarks/table.py --check    # exits with 1 if something is

The figures come from benchmarks/results. In a page, whatever stands between the two
comments

    <!-- table.py NAME -->
    <!-- table.py end -->

is replaced by the output of the function NAME in FIGURES. A ratio is the median over
the turns of one measurement.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from statistics import median

from ctc_loss import TASKS, ratios, spaced

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = [
    ROOT / "README.md",
    ROOT / "docs" / "performance.md",
    ROOT / "docs" / "numerics.md",
]
# Results by the device on which mlx-ctc ran; torch ran on the CPU. A file may be
# missing.
EXACTNESS = {"CPU": "exactness_cpu.json", "GPU": "exactness_gpu.json"}

COMPILED = "ours compiled"

GPU_COLUMNS = {
    "mlx-ctc": lambda r: milliseconds(median(r["queued seconds"][COMPILED])),
    "lower bound": lambda r: milliseconds(r["floor"]),
    "torch / mlx-ctc, synchronised": lambda r: cell(ratio(r, "seconds", "torch")),
    "compiled": lambda r: cell(ratio(r, "seconds", "torch", COMPILED)),
    "queued": lambda r: cell(ratio(r, "queued seconds", "torch")),
    "compiled, queued": lambda r: cell(ratio(r, "queued seconds", "torch", COMPILED)),
    "cuDNN / mlx-ctc, queued": lambda r: cell(ratio(r, "queued seconds", "cudnn")),
    "memory, mlx-ctc / torch": lambda r: share_of_memory(r),
}


def load(name):
    return json.loads((RESULTS / name).read_text())


def ratio(record, timing, rival, ours="ours"):
    """The other library's time divided by ours: the median of the repetitions."""
    seconds = {"ours": record[timing][ours], rival: record[timing][rival]}
    return median(ratios(seconds, rival))


def cell(ratio):
    return f"{ratio:.1f}"


def milliseconds(seconds):
    return f"{1e3 * seconds:.2f} ms"


def share_of_memory(record):
    return f"{record['memory']['ours'] / record['memory']['torch']:.2f}"


def gpu_table():
    rows = [
        [spaced(record["shape"]), *(text(record) for text in GPU_COLUMNS.values())]
        for record in load("h200.json")["records"]
    ]
    return markdown(["T x N x C x S", *GPU_COLUMNS], rows)


# The results of each number of threads: the same shapes with full lengths and warm
# caches, and as training has them.
CPU_RESULTS = {
    1: {"warm": "cpu.json", "cold": "cpu_cold.json"},
    2: {"warm": "cpu_2_threads.json", "cold": "cpu_2_threads_cold.json"},
}


def cpu_ratios():
    """The columns of the CPU's table by (threads, task, warm or cold).

    Each has one ratio for each shape. Results that are not there have no column.
    """
    return {
        (threads, task, caches): [
            ratio(record, "seconds", "torch")
            for record in load(name)["records"]
            if record["task"] == task
        ]
        for threads, files in CPU_RESULTS.items()
        for task in TASKS
        for caches, name in files.items()
        if (RESULTS / name).exists()
    }


def cpu_table():
    columns = cpu_ratios()
    records = load(CPU_RESULTS[1]["warm"])["records"]
    with_gradient = [record for record in records if record["task"] == "gradient"]
    rows = [
        [spaced(record["shape"]), *map(cell, of_shape), share_of_memory(record)]
        for record, *of_shape in zip(with_gradient, *columns.values(), strict=True)
    ]
    medians = [f"**{cell(median(column))}**" for column in columns.values()]
    rows.append(["**median**", *medians, ""])
    names = []
    for threads, task, caches in columns:
        prefix = f"{threads} threads: " if threads > 1 else ""
        names.append(f"{prefix}{TASKS[task]}" if caches == "warm" else "cold, ragged")
    names = ["T x N x C x S", *names, "peak memory, mlx-ctc / torch"]
    return markdown(names, rows)


def threads_table():
    """Milliseconds, and torch's time divided by ours, for each number of threads."""
    cells = {}
    for record in load("cpu_threads.json")["records"]:
        of_shape = cells.setdefault(record["shape"], {})
        of_ours = milliseconds(median(record["seconds"]["ours"]))
        times_torch = cell(ratio(record, "seconds", "torch"))
        of_shape[record["threads"]] = f"{of_ours}, {times_torch}"
    numbers = list(next(iter(cells.values())))
    rows = [[spaced(shape), *of_shape.values()] for shape, of_shape in cells.items()]
    columns = [f"{n} thread{'s' if n > 1 else ''}" for n in numbers]
    return markdown(["T x N x C x S", *columns], rows)


DECODERS = "fast-ctc-decode", "flashlight-text", "pyctcdecode", "torchaudio"


def decoding_table():
    """A row for each kind of scores and feature, with the widths side by side."""
    rows = {}
    for record in load("decoding.json")["records"]:
        row = rows.setdefault((record["scores"], record["feature"]), [])
        row.append(record)
    cells = [
        [
            f"{scores}, {' x '.join(map(str, records[0]['shape']))}",
            feature,
            joined(records, lambda r: short_time(r["seconds"]["mlx-ctc"])) + " ms",
            *(
                joined(records, lambda r, d=d: times(r["ratios"].get(d)))
                for d in DECODERS
            ),
        ]
        for (scores, feature), records in rows.items()
    ]
    columns = ["scores, T x C", "feature", "mlx-ctc", *DECODERS]
    return markdown(columns, cells)


def joined(records, text):
    texts = [text(record) for record in records]
    return " / ".join(texts) if any(texts) else ""


def short_time(seconds):
    return f"{1e3 * seconds:.{2 if seconds > 1e-4 else 3}f}"


def times(ratio):
    if ratio is None:
        return ""
    return (
        f"{ratio:.2f}"
        if ratio < 1
        else f"{ratio:.1f}"
        if ratio < 10
        else f"{ratio:.0f}"
    )


def decoding_summary():
    """What is behind, and by how much; the rest is ahead."""
    ratios = {"greedy": [], "alignment": [], "search": []}
    for record in load("decoding.json")["records"]:
        feature = record["feature"]
        of_feature = ratios[feature if feature in ratios else "search"]
        of_feature += [r for name, r in record["ratios"].items() if name in DECODERS]

    def spread(feature):
        found = ratios[feature]
        return (
            f"{times(min(found))} to {times(max(found))} times as long "
            f"(median {times(median(found))})"
        )

    return (
        f"Every beam search of another package takes {spread('search')}, greedy "
        f"decoding by fast-ctc-decode {spread('greedy')}, alignment by torchaudio "
        f"{spread('alignment')}."
    )


def summary():
    columns = cpu_ratios()
    warm = columns[1, "gradient", "warm"]
    cold = columns.get((1, "gradient", "cold"))
    gpu = [
        ratio(record, "queued seconds", "torch", COMPILED)
        for record in load("h200.json")["records"]
    ]
    return (
        f"Loss and gradient are {spread(warm)} times as fast as torch's on one CPU "
        f"thread (median {median(warm):.1f} over {len(warm)} shapes"
        + (f"; {spread(cold)} with cold caches and ragged lengths" if cold else "")
        + f") and {spread(gpu)} times as fast on one NVIDIA H200 (median "
        f"{median(gpu):.1f} over {len(gpu)} shapes, compiled, steps queued): "
        f"[tables, commands and machines](docs/performance.md)."
    )


def spread(ratios):
    return f"{min(ratios):.1f} to {max(ratios):.1f}"


def exactness_table():
    """The relative errors of losses: a column for each size, a row for each library."""
    reports = {
        device: load(name)["records"]
        for device, name in EXACTNESS.items()
        if (RESULTS / name).exists()
    }
    sizes = sorted({record["size"] for record in reports["CPU"]})
    libraries = [(f"mlx-ctc, {device}", device, "ours") for device in reports]
    libraries.append(("torch, CPU", "CPU", "torch"))
    rows = []
    for T, entry in dict.fromkeys((r["T"], r["entry"]) for r in reports["CPU"]):
        for library, device, key in libraries:
            errors = {
                record["size"]: f"{record[key]:.0e}"
                for record in reports[device]
                if (record["T"], record["entry"]) == (T, entry)
            }
            rows.append([str(T), entry, library, *(errors.get(x, "") for x in sizes)])
    columns = ["frames", "input", "loss by", *(f"loss {size:g}" for size in sizes)]
    return markdown(columns, rows)


def host_table():
    """Microseconds on the host for each step."""
    microseconds = load("host_h200.json")["microseconds"]
    rows = [[what, f"{value:.0f}"] for what, value in microseconds.items()]
    return markdown(["queued, for each step", "µs"], rows)


def startup_table():
    """Seconds of the steps in a process, by what it finds compiled."""
    turn = load("startup_h200.json")[0]
    columns = list(next(iter(turn.values()))[0])
    rows = [
        [process, *(f"{seconds[column]:.2f}" for column in columns)]
        for process, (seconds, _) in turn.items()
    ]
    return markdown(["process", *columns], rows)


def markdown(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


FIGURES = {
    "summary": summary,
    "cpu_table": cpu_table,
    "threads_table": threads_table,
    "gpu_table": gpu_table,
    "host_table": host_table,
    "startup_table": startup_table,
    "exactness_table": exactness_table,
    "decoding_summary": decoding_summary,
    "decoding_table": decoding_table,
}


def up_to_date(text):
    """The page with every marked part replaced."""
    part = re.compile(
        r"(<!-- table\.py (\w+) -->)\n.*?(<!-- table\.py end -->)", re.DOTALL
    )
    return part.sub(lambda m: f"{m[1]}\n{FIGURES[m[2]]()}\n{m[3]}", text)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    outdated = [
        page for page in PAGES if up_to_date(page.read_text()) != page.read_text()
    ]
    for page in outdated:
        print(f"{page.relative_to(ROOT)}: {'out of date' if check else 'rewritten'}")
        if not check:
            page.write_text(up_to_date(page.read_text()))
    sys.exit(check and bool(outdated))


if __name__ == "__main__":
    main()
