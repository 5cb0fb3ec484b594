"""Draws kernels.png: how the GPU kernels divide the lattice.

python docs/draw_kernels.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrow, Rectangle

SEGMENTS, WINDOWS = 6, 3
ALPHA, W, CHECKPOINT = "#1f6fb4", "#d9652b", "#333333"


def lattice(axes, title):
    axes.set_title(title, fontsize=11)
    axes.set_xlim(-0.3, SEGMENTS + 0.3)
    axes.set_ylim(WINDOWS + 0.25, -0.25)
    axes.set_xticks([s + 0.5 for s in range(SEGMENTS)], range(SEGMENTS))
    axes.set_yticks([w + 0.5 for w in range(WINDOWS)], range(WINDOWS))
    axes.set_xlabel("segments of 16 frames")
    axes.set_ylabel("windows of 32 blanks and labels")
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)


def cell(axes, segment, window, color, alpha):
    axes.add_patch(
        Rectangle(
            (segment + 0.04, window + 0.04), 0.92, 0.92, color=color, alpha=alpha, lw=0
        )
    )


def arrow(axes, x, y, dx, dy, color):
    axes.add_patch(
        FancyArrow(
            x,
            y,
            dx,
            dy,
            width=0.02,
            head_width=0.11,
            head_length=0.09,
            length_includes_head=True,
            color=color,
        )
    )


def draw_scan(axes):
    """One moment of alpha: which simdgroup does what."""
    lattice(axes, "scan: alpha after 4 phases")
    phase = 4
    for window in range(WINDOWS):
        for segment in range(SEGMENTS):
            ahead = segment - (phase - window)
            shade = {0: 0.9, 1: 0.4, 2: 0.2}.get(ahead, 0.06)
            cell(axes, segment, window, ALPHA, shade)
            what = {0: "computed", 1: "made\nprobabilities", 2: "fetched"}.get(ahead)
            if what:
                color = "white" if ahead == 0 else "black"
                middle = segment + 0.5, window + 0.5
                axes.text(*middle, what, ha="center", va="center", size=8, color=color)
            if ahead < 0:
                x = segment + 1
                axes.plot([x, x], [window + 0.1, window + 0.9], color=CHECKPOINT, lw=2)
                if window + 1 < WINDOWS:
                    arrow(axes, segment + 0.5, window + 0.85, 0, 0.3, ALPHA)


def draw_gradient(axes):
    """All segments at once, each from its two checkpoints."""
    lattice(axes, "gradient: every segment by itself")
    for window in range(WINDOWS):
        for segment in range(SEGMENTS):
            cell(axes, segment, window, "#777777", 0.08)
            x, y = segment, window
            axes.plot([x, x], [y + 0.1, y + 0.9], color=CHECKPOINT, lw=2)
            axes.plot([x + 1, x + 1], [y + 0.1, y + 0.9], color=CHECKPOINT, lw=2)
            arrow(axes, x + 0.1, y + 0.35, 0.8, 0, ALPHA)
            arrow(axes, x + 0.9, y + 0.65, -0.8, 0, W)
            if window > 0:
                arrow(axes, x + 0.35, y - 0.12, 0, 0.26, ALPHA)
            if window + 1 < WINDOWS:
                arrow(axes, x + 0.65, y + 1.12, 0, -0.26, W)


def main():
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
    draw_scan(left)
    draw_gradient(right)
    figure.savefig(Path(__file__).with_name("kernels.png"), dpi=130)


if __name__ == "__main__":
    main()
