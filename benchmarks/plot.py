"""Plots of the results of ctc_loss.py.

    cd benchmarks/results
    python ../plot.py cpu.json --ratios ../../docs/speed-cpu.png
    python ../plot.py growth_cpu.json --growth ../../docs/growth-cpu.png

Bars show the time of another library divided by ours: the median over the turns, with
the minimum and the maximum. Lines show the time against T, N or S.
"""

import argparse
import json
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import numpy as np
from ctc_loss import TASKS, ratios, spaced

COLORS = {
    "ours": "#1f6fb4",
    "ours compiled": "#7fb3dd",
    "torch": "#d9652b",
    "cudnn": "#5a9e4b",
}
TIMINGS = {"seconds": "", "queued seconds": ", steps queued"}
LETTERS = {"T": "frames", "N": "sequences", "S": "labels"}


def spread(record, timing, rival):
    """The rival's time divided by ours: median, minimum, maximum."""
    of_turns = ratios(record[timing], rival)
    return median(of_turns), min(of_turns), max(of_turns)


def bars_of(records):
    """The bars of every shape: label to rival and (task, timing, rival)."""
    bars = {}
    for record in records:
        for timing, suffix in TIMINGS.items():
            for rival in record.get(timing, {}):
                if rival.startswith("ours"):
                    continue
                label = f"{rival} / ours, {TASKS[record['task']]}{suffix}"
                bars[label] = rival, (record["task"], timing, rival)
    return bars


def plot_ratios(report, threads):
    records = [
        record
        for record in report["records"]
        if not record.get("growth") and threads in (None, record["threads"])
    ]
    if not records:
        raise SystemExit("[plot] Expected records of shapes but there are none.")
    shapes = list(dict.fromkeys(record["shape"] for record in records))
    bars = bars_of(records)
    height = 0.8 / len(bars)
    figure, axes = plt.subplots(
        figsize=(8, 1.2 + len(shapes) * (0.16 + 0.13 * len(bars))), layout="constrained"
    )
    seen = {}
    for k, (label, (rival, key)) in enumerate(bars.items()):
        seen[rival] = seen.get(rival, -1) + 1
        of_bar = [
            (shapes.index(record["shape"]), *spread(record, key[1], key[2]))
            for record in records
            if record["task"] == key[0] and key[2] in record.get(key[1], {})
        ]
        place, middle, least, greatest = np.array(of_bar).T
        axes.barh(
            place + (k - (len(bars) - 1) / 2) * height,
            middle,
            height,
            xerr=[middle - least, greatest - middle],
            label=label,
            color=COLORS[rival],
            alpha=1 / (1 + 0.8 * seen[rival]),
            error_kw={"lw": 0.8},
        )
    axes.axvline(1, color="black", lw=0.8)
    axes.set_yticks(range(len(shapes)), [*map(spaced, shapes)])
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_ylabel("T x N x C x S")
    axes.set_xlabel("times as long as ours")
    axes.set_title(machine(report, records), fontsize="medium")
    figure.legend(loc="outside lower center", fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_growth(report, threads):
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained")
    drawn = []
    for letter, axes in zip(LETTERS, panels, strict=True):
        records = [
            record
            for record in report["records"]
            if record.get("growth") == letter
            and record["task"] == "gradient"
            and threads in (None, record["threads"])
        ]
        drawn += records
        place = "TNCS".index(letter)
        # Queued steps, where they were measured.
        for library in COLORS:
            points = [
                (
                    int(record["shape"].split("x")[place]),
                    median(record.get("queued seconds", {}).get(library, seconds)),
                )
                for record in records
                if (seconds := record["seconds"].get(library))
            ]
            if points:
                x, y = np.array(points).T
                axes.loglog(
                    x, 1e3 * y, "o-", ms=4, label=library, color=COLORS[library]
                )
        if records:
            others = records[0]["shape"].split("x")
            others[place] = letter
            axes.set_title(" x ".join(others), fontsize="medium")
        axes.set_xlabel(f"{letter}, {LETTERS[letter]}")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    if not drawn:
        raise SystemExit("[plot] Expected records of growth but there are none.")
    panels[0].set_ylabel("ms, loss and gradient")
    panels[0].legend(fontsize="small")
    figure.suptitle(machine(report, drawn), fontsize="medium")
    return figure


def machine(report, records):
    of = report["machine"]
    versions = f"torch {of['torch']}" if "torch" in of else f"mlx {of['mlx']}"
    if records[0]["device"] == "gpu":
        return f"{of['gpu']}, {versions}"
    threads = " and ".join(str(n) for n in sorted({r["threads"] for r in records}))
    plural = "" if threads == "1" else "s"
    return f"{of['processor']}, {threads} thread{plural}, {versions}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("report", type=Path, help="what ctc_loss.py --json has written")
    add("--ratios", metavar="PICTURE", help="bars, of the shapes that do not grow")
    add("--growth", metavar="PICTURE", help="lines, of those that do")
    add("--threads", type=int, help="of the records with so many threads only")
    options = parser.parse_args()
    report = json.loads(options.report.read_text())
    for plot, path in (plot_ratios, options.ratios), (plot_growth, options.growth):
        if path:
            figure = plot(report, options.threads)
            figure.savefig(path, dpi=120, metadata={"Software": None})
            plt.close(figure)


if __name__ == "__main__":
    main()
