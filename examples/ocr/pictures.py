# Writes a PNG file of text lines, each with the text that was read and the columns of
# its characters.

from pathlib import Path

from data import HEIGHT, Line, ink
from matplotlib.figure import Figure
from model import PATCH
from reader import Reader

from mlx_ctc.plot import plot_alignment

INCHES = 7  # width of the picture


def save_reading(reader: Reader, lines: list[Line], path: Path) -> None:
    """Each line with its text, what was read if that is another, and the columns of
    each character that was read."""
    images = [line.image() for line in lines]
    logits, lengths = reader(images)
    texts = reader.texts(logits, lengths)
    widest = max(line.width for line in lines)
    row = 0.45 + 1.2 * INCHES * HEIGHT / widest  # with a title and the characters
    figure = Figure(figsize=(INCHES, row * len(lines)), layout="constrained")
    axes = figure.subplots(len(lines), 1, squeeze=False)[:, 0]
    for n, (ax, line, image) in enumerate(zip(axes, lines, images, strict=True)):
        T, text = lengths[n].item(), texts[n]
        spans = reader.align(logits[n, :T], text) if text else []
        names = text.replace(" ", "␣")
        upright = ink(image)[::-1].T  # (W, H), from the bottom to the top
        plot_alignment(spans, names, upright, T, T * PATCH, ax)
        ax.set_xlim(0, widest)
        ax.set_axis_off()
        right, title = text == line.text, f"{line.source}: {line.text}"
        title += "" if right else f"   read: {text}"
        ax.set_title(title, loc="left", fontsize=9, color="0.3" if right else "C3")
    figure.savefig(path, dpi=150)
