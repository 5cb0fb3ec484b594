# Lines for the tests: images of digits, runs of the command.

import contextlib
import io

import mlx.core as mx
import numpy as np
from ocr_example import fonts, main
from PIL import Image


def write_line(path, text, pixels=24, font=0):
    """An image of a text beside the text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    margins = np.array([0.1, 0.1, 0.1])
    image = fonts.draw(text, fonts.fonts_to_train()[font], pixels, margins)
    Image.fromarray(image).save(path)
    path.with_suffix(".txt").write_text(f"{text}\n")
    return path


def write_digits(folder, count=60):
    rng = np.random.default_rng(0)
    for part, size in (("train", count), ("test", 20)):
        for i in range(size):
            text = "".join(rng.choice(list("01234"), rng.integers(1, 5)))
            write_line(folder / part / f"{i:02}.png", text, int(rng.integers(20, 30)))
    return folder


def run(*arguments):
    """What the command prints that trains on small batches."""
    printed, device = io.StringIO(), mx.default_device()
    try:
        with contextlib.redirect_stdout(printed):
            line = [*map(str, arguments), "--batch-columns", "400", "--cpu"]
            main.main(main.parse_arguments(line))
    finally:
        mx.set_default_device(device)
    return printed.getvalue()
