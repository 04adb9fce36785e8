"""The look that the pictures of this package have in common, and how they are written."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Literal

from cenote.logs._output_file import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1f2933"
MUTED = "#7b8794"
GRID = "#e4e7eb"
WATER = "#1f7a8c"
STONE = "#c8553d"


def new_figure(height: float) -> Figure:
    """Make an empty figure, ten inches wide and `height` inches high; ModuleNotFoundError without matplotlib."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(h_pad=0.15, w_pad=0.15)
    return Figure(figsize=(10, height), dpi=150, facecolor="white", layout=layout)


def dress(axes: Axes, x_label: str, y_label: str, title: str, subtitle: str, grid: Literal["x", "y"] = "y") -> None:
    """Give axes their labels and title; `grid` is the axis on which values are read."""
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.set_title(title, loc="left", color=INK, fontsize=13, fontweight="bold", pad=26 if subtitle else 10)
    axes.text(0, 1.025, subtitle, transform=axes.transAxes, color=MUTED, fontsize=9, va="bottom")
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(colors=MUTED, length=0, labelsize=9)


def write(path: str | os.PathLike[str], figure: Figure, picture_format: str) -> None:
    """Write a figure into a file, as a PNG, an SVG or a PDF."""
    picture = io.BytesIO()
    figure.savefig(picture, format=picture_format)
    write_whole(path, picture.getvalue())
