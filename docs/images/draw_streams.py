"""Draws the pictures of docs/stream-ordered-allocation.md.

::

    python docs/images/draw_streams.py        writes stream-*.svg beside this file
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

HERE = Path(__file__).parent
INK, WATER, STONE, WRONG = "#1f2a36", "#2a7fa8", "#8a94a0", "#c0392b"
LANE_HEIGHT = 0.56

# Text stays text, and a second run writes the same bytes.
plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "cenote", "font.family": "sans-serif", "font.size": 10})


def lanes(names: list[str], length: float) -> tuple[plt.Figure, Axes, dict[str, float]]:
    """Begin a drawing with one lane for each name, time from left to right; the height of each lane."""
    figure, axes = plt.subplots(figsize=(8.6, 0.62 + 0.78 * len(names)))
    heights = {name: float(len(names) - 1 - row) for row, name in enumerate(names)}
    for name, y in heights.items():
        axes.text(-0.15, y, name, ha="right", va="center", color=INK, fontweight="bold")
        if name:
            axes.plot([0, length], [y, y], color=STONE, linewidth=0.8, zorder=0)
    axes.annotate(
        "time", (length, -0.75), (length - 0.9, -0.75), va="center", color=STONE, arrowprops={"arrowstyle": "->"}
    )
    axes.set_xlim(-2.3, length + 0.1)
    axes.set_ylim(-0.95, len(names) - 0.35)
    axes.axis("off")
    figure.subplots_adjust(0, 0, 1, 1)
    return figure, axes, heights


def piece(axes: Axes, y: float, begin: float, end: float, text: str, color: str = WATER, solid: bool = True) -> None:
    """Work on a stream, from `begin` to `end`; hollow where it only holds memory."""
    box = FancyBboxPatch(
        (begin, y - LANE_HEIGHT / 2),
        end - begin,
        LANE_HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.08",
        facecolor=color if solid else "white",
        edgecolor=color,
        linewidth=1.2,
    )
    axes.add_patch(box)
    ink = "white" if solid else color
    axes.text((begin + end) / 2, y, text, ha="center", va="center", color=ink, fontsize=9)


def note(axes: Axes, at: tuple[float, float], text: str, shift: tuple[float, float], color: str = INK) -> None:
    """Write a remark, with an arrow to what it is about."""
    axes.annotate(
        text,
        at,
        (at[0] + shift[0], at[1] + shift[1]),
        ha="center",
        va="center",
        color=color,
        fontsize=9,
        arrowprops={"arrowstyle": "->", "color": color, "linewidth": 1.0},
    )


def on_host(axes: Axes, y: float, calls: list[str]) -> None:
    """Draw what the host does, one after the other."""
    begin = 0.1
    for text in calls:
        end = begin + 0.55 + 0.103 * len(text)
        piece(axes, y, begin, end, text, STONE, False)
        begin = end + 0.1


def event(axes: Axes, at: float, recorded: float, waited: float, text: str) -> None:
    """Draw an event, from the stream that it is recorded on to the one that waits for it."""
    middle = (recorded + waited) / 2
    axes.plot(at, middle, "o", color=INK, markersize=8)
    axes.plot([at, at], [recorded, middle], color=INK, linewidth=1.0)
    axes.annotate("", (at, waited + LANE_HEIGHT / 2), (at, middle), arrowprops={"arrowstyle": "->", "color": INK})
    axes.text(at + 0.25, middle, text, va="center", color=INK, fontsize=9)


def save(figure: plt.Figure, name: str) -> None:
    """Write the drawing beside this file."""
    figure.savefig(HERE / name, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def wrong() -> None:
    """Draw memory that is freed while queued work still reads it, and the next one overwrites it."""
    figure, axes, y = lanes(["host", "stream A", "stream B"], 11)
    on_host(
        axes, y["host"], ["x = allocate", "launch read(x)", "free x", "y = allocate: same address", "launch write(y)"]
    )
    piece(axes, y["stream A"], 2.6, 5.4, "other work")
    piece(axes, y["stream A"], 5.4, 10.8, "read(x)")
    piece(axes, y["stream B"], 8.5, 10.2, "write(y)", WRONG)
    axes.axvspan(8.5, 10.2, 0.12, 0.62, color=WRONG, alpha=0.10, zorder=-1)
    axes.text(8.3, -0.5, "both use the same bytes", ha="right", color=WRONG, fontsize=9)
    save(figure, "stream-wrong.svg")


def right() -> None:
    """Draw how, on one stream, order alone keeps the next user behind the last."""
    figure, axes, y = lanes(["host", "stream A"], 11)
    on_host(
        axes,
        y["host"],
        ["x = allocate(A)", "launch read(x)", "free x (A)", "y = allocate(A): as x", "launch write(y)"],
    )
    piece(axes, y["stream A"], 2.6, 4.8, "other work")
    piece(axes, y["stream A"], 4.8, 8.9, "read(x)")
    piece(axes, y["stream A"], 8.9, 10.8, "write(y)")
    note(axes, (8.9, y["stream A"] - 0.28), "runs after read(x): both are on A, and nobody waited", (-3.6, -0.45))
    save(figure, "stream-right.svg")


def hand_over() -> None:
    """Draw how another stream waits on the device for an event, and then may use the block."""
    figure, axes, y = lanes(["stream A", "", "stream B"], 11)
    piece(axes, y["stream A"], 0.4, 4.2, "read(x)")
    piece(axes, y["stream A"], 4.8, 10.2, "goes on with other work")
    event(axes, 4.5, y["stream A"], y["stream B"], "E, recorded on A in a call that freed memory there")
    piece(axes, y["stream B"], 0.4, 2.9, "own work")
    piece(axes, y["stream B"], 2.9, 4.5, "waits for E", STONE, False)
    piece(axes, y["stream B"], 4.5, 7.6, "write(y): same address")
    save(figure, "stream-hand-over.svg")


def record_stream() -> None:
    """Draw how a block that a second stream uses too is freed after the work of both."""
    figure, axes, y = lanes(["stream A", "stream B", "", "reclaimer"], 11)
    piece(axes, y["stream A"], 0.4, 2.4, "write(x)")
    piece(axes, y["stream A"], 2.5, 10.2, "goes on with other work")
    piece(axes, y["stream B"], 2.5, 5.6, "read(x), recorded")
    piece(axes, y["stream B"], 5.7, 10.2, "goes on with other work")
    event(axes, 5.65, y["stream B"], y["reclaimer"], "E, over all work of the device when x was freed")
    piece(axes, y["reclaimer"], 3.2, 5.65, "waits for E", STONE, False)
    piece(axes, y["reclaimer"], 5.65, 7.2, "free x")
    save(figure, "stream-record.svg")


if __name__ == "__main__":
    wrong()
    right()
    hand_over()
    record_stream()
