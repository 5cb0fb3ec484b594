# Runs of main.py: a command line that trains a tiny model, and what the run leaves.

import json


def arguments(digits, out, *more, steps=24, every=4):
    line = f"--corpus fsdd --data {digits} --text digits --out {out} --cpu "
    line += f"--channels 16 --blocks 2 --steps {steps} --evaluate-every {every} "
    return [*line.split(), "--batch-size", "4", *more]


def history(out):
    return json.loads((out / "history.json").read_text())


def losses(out):
    return [loss for line in history(out) for loss in line["losses"]]
