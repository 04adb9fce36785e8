"""Draws the picture of docs/design/allocation.md.

::

    python docs/images/draw_allocation.py     writes allocation.svg beside this file
"""

from __future__ import annotations

import matplotlib.pyplot as plt
from draw_streams import INK, STONE, WATER, save
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch


def box(axes: Axes, left: float, right: float, y: float, text: str, color: str = WATER, solid: bool = False) -> None:
    """Draw one station of the way, half a unit high."""
    shape = FancyBboxPatch(
        (left, y - 0.25),
        right - left,
        0.5,
        boxstyle="round,pad=0,rounding_size=0.08",
        facecolor=color if solid else "white",
        edgecolor=color,
        linewidth=1.2,
    )
    axes.add_patch(shape)
    axes.text((left + right) / 2, y, text, ha="center", va="center", color="white" if solid else INK, fontsize=9)


def down(axes: Axes, x: float, y: float, to: float) -> None:
    """Draw an arrow from one station to the next, from edge to edge."""
    axes.annotate("", (x, to + 0.25), (x, y - 0.25), arrowprops={"arrowstyle": "->", "color": INK})


def remark(axes: Axes, y: float, text: str) -> None:
    """Write what a station does, to the right of it."""
    axes.text(7.15, y, text, va="center", color=INK, fontsize=9)


def allocation() -> None:
    """Draw the way of an allocation from a program down to the driver."""
    figure, axes = plt.subplots(figsize=(8.6, 6.6))
    axes.set_xlim(0, 12)
    axes.set_ylim(-9.05, 0.45)
    axes.axis("off")
    figure.subplots_adjust(0, 0, 1, 1)

    doors = [(0.1, 1.3, "PyTorch"), (1.4, 2.4, "CuPy"), (2.5, 3.6, "Numba"), (3.7, 4.6, "C")]
    for left, right, name in doors:
        box(axes, left, right, 0, name, STONE)
    box(axes, 5.0, 6.9, 0, "DeviceBuffer, C++", STONE)
    remark(axes, 0, "the program asks")

    for left, right, _ in doors:
        down(axes, (left + right) / 2, 0, -1)
    box(axes, 0.1, 4.6, -1, "ledger")
    remark(axes, -1, "will know the block again when it is freed")
    down(axes, 2.35, -1, -2)
    axes.annotate("", (5.95, -1.75), (5.95, -0.25), arrowprops={"arrowstyle": "->", "color": INK})
    box(axes, 0.1, 6.9, -2, "registry")
    remark(axes, -2, "gives the current resource of the device")
    down(axes, 3.5, -2, -3)
    box(axes, 0.1, 6.9, -3, "adaptors: count, limit, log, …")
    remark(axes, -3, "each passes the call on")
    down(axes, 3.5, -3, -4)

    steps = [
        ("1  front cache of this thread and stream", "no lock that others hold"),
        ("2  a free block of this stream, or a ready one", "the lock of the pool"),
        ("3  a block of another stream", "the device waits for an event"),
        ("4  a block that has become ready meanwhile", "asks events"),
        ("5  memory from the backing", "one thread at a time"),
    ]
    frame = FancyBboxPatch(
        (0.1, -7.15), 6.8, 3.4, boxstyle="round,pad=0,rounding_size=0.08", facecolor="white", edgecolor=WATER
    )
    axes.add_patch(frame)
    axes.text(0.3, -4.0, "pool", va="center", color=WATER, fontweight="bold", fontsize=9)
    remark(axes, -4.0, "asks who the stream is")
    for row, (step, cost) in enumerate(steps):
        y = -4.5 - 0.57 * row
        box(axes, 1.2, 6.7, y, step, WATER, solid=True)
        remark(axes, y, cost)
    down(axes, 3.5, -6.9, -7.75)
    box(axes, 0.1, 3.4, -7.75, "pages under its own addresses")
    box(axes, 3.6, 6.9, -7.75, "chunks of any upstream")
    remark(axes, -7.75, "the backing of a pool is one of the two")
    down(axes, 1.75, -7.75, -8.7)
    down(axes, 5.25, -7.75, -8.7)
    box(axes, 0.1, 6.9, -8.7, "driver port: libcuda.so.1, or the simulated driver", STONE)
    remark(axes, -8.7, "the only way to a device")
    save(figure, "allocation.svg")


if __name__ == "__main__":
    allocation()
