"""The README's tables of what ctc_loss.py has measured, from its JSON.

    cd benchmarks/results
    python ../table.py cpu.json cpu_2_threads.json
    python ../table.py h200.json

Ratios are the median of the turns. Of a CPU each file gives two columns, loss with
gradient and loss alone, and the first one the peak of memory.
"""

import argparse
import json
from pathlib import Path
from statistics import median

from ctc_loss import TASKS, ratios, spaced

COMPILED = "ours compiled"

GPU_COLUMNS = {
    "ours, queued": lambda r: milliseconds(median(r["queued seconds"][COMPILED])),
    "floor": lambda r: milliseconds(r["floor"]),
    "torch / ours: each step awaited": lambda r: cell(ratio(r, "seconds", "torch")),
    "compiled": lambda r: cell(ratio(r, "seconds", "torch", COMPILED)),
    "queued": lambda r: cell(ratio(r, "queued seconds", "torch")),
    "compiled, queued": lambda r: cell(ratio(r, "queued seconds", "torch", COMPILED)),
    "cuDNN / ours, queued": lambda r: cell(ratio(r, "queued seconds", "cudnn")),
    "memory, ours / torch": lambda r: share_of_memory(r),
}


def ratio(record, timing, rival, ours="ours"):
    """How many times as long as ours the rival takes."""
    seconds = {"ours": record[timing][ours], rival: record[timing][rival]}
    return median(ratios(seconds, rival))


def cell(ratio):
    return f"{ratio:.1f}"


def milliseconds(seconds):
    return f"{1e3 * seconds:.2f} ms"


def share_of_memory(record):
    return f"{record['memory']['ours'] / record['memory']['torch']:.2f}"


def gpu_table(report):
    rows = [
        [spaced(record["shape"]), *(text(record) for text in GPU_COLUMNS.values())]
        for record in report["records"]
    ]
    return markdown([*GPU_COLUMNS], rows)


def cpu_table(reports):
    columns = {}  # name and ratios, in the order of the first one's shapes
    for report in reports:
        threads = report["records"][0]["threads"]
        prefix = "" if threads == 1 else f"{threads} threads: "
        for task, name in TASKS.items():
            columns[prefix + name] = [
                ratio(record, "seconds", "torch")
                for record in report["records"]
                if record["task"] == task
            ]
    with_gradient = [r for r in reports[0]["records"] if r["task"] == "gradient"]
    rows = [
        [spaced(record["shape"]), *map(cell, of_shape), share_of_memory(record)]
        for record, *of_shape in zip(with_gradient, *columns.values(), strict=True)
    ]
    medians = [f"**{cell(median(column))}**" for column in columns.values()]
    rows.append(["**median**", *medians, ""])
    return markdown([*columns, "peak memory, ours / torch"], rows)


def markdown(columns, rows):
    header = ["T x N x C x S", *columns]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table(reports):
    if reports[0]["records"][0]["device"] == "gpu":
        return gpu_table(*reports)
    return cpu_table(reports)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reports", type=Path, nargs="+")
    paths = parser.parse_args().reports
    print(table([json.loads(path.read_text()) for path in paths]))


if __name__ == "__main__":
    main()
