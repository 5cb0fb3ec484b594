# Real lines: a folder of images, each beside its text.

import unicodedata
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from data import DataError, Line, Lines, scaled_width
from PIL import Image

SUFFIXES = ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"


def load(folder: Path, only_test: bool = False) -> Lines:
    """Lines from images ``NAME.png`` with texts ``NAME.txt``, also in folders of the
    folder. Those in ``train`` and ``test`` are to train and test on, if both exist;
    else every tenth line, chosen by its file's name, is for the test, or all."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder.")
    left_out: list[str] = []
    parts = folder / "train", folder / "test"
    if all(part.is_dir() for part in parts):
        train, test = (read_folder(part, left_out) for part in parts)
    else:
        train, test = [], []
        for line in read_folder(folder, left_out):
            held_out = only_test or zlib.crc32(Path(line.name).name.encode()) % 10 == 0
            (test if held_out else train).append(line)
    for name, lines in (("train", train), ("test", test)):
        if not lines and not (only_test and name == "train"):
            reasons = "; ".join(left_out[:3]) or "there are too few"
            raise DataError(f"{folder} has no lines to {name} on: {reasons}")
    return Lines(f"images in {folder.name}", train, test, left_out)


def read_folder(folder: Path, left_out: list[str]) -> list[Line]:
    """The lines of the images in a folder and its folders, in the order of names. What
    cannot be used is named in ``left_out``."""
    lines = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            try:
                lines.append(read_line(path))
            except DataError as error:
                left_out.append(f"{path}: {error}")
    return lines


def read_line(path: Path) -> Line:
    try:
        text = path.with_suffix(".txt").read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"there is no {path.stem}.txt") from None
    except UnicodeDecodeError:
        raise DataError(f"{path.stem}.txt is not in UTF-8") from None
    text = " ".join(unicodedata.normalize("NFC", text).split())
    if not text:
        raise DataError("its text is empty")
    try:
        with Image.open(path) as image:
            width = scaled_width(*image.size)
    except OSError as error:
        raise DataError(f"it cannot be read: {error}") from None
    return Line(str(path), path.parent.name, text, width, partial(read_image, path))


def read_image(path: Path) -> np.ndarray:
    """Grey levels (height, width) uint8. What is transparent is white."""
    try:
        with Image.open(path) as image:
            if image.has_transparency_data:
                image = image.convert("RGBA")
                paper = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(paper, image)
            return np.asarray(image.convert("L"))
    except OSError as error:
        raise DataError(f"{path}: it cannot be read: {error}") from None
