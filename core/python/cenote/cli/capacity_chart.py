"""The chart of `cenote replay --capacity min`: of each resource the page floor, its capacity, and what it held."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cenote.cli.capacity_measurement import Measurement
from cenote.logs._picture import INK, MUTED, STONE, WATER, dress, new_figure, write
from cenote.logs.floor import PageFloor
from cenote.logs.timeline import picture_format
from cenote.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BAR = 0.26
"""Thickness; the place of a resource is 1."""


def draw(path: Path, floor: PageFloor, measured: Sequence[Measurement], title: str) -> None:
    """Draw bars against the peak of live bytes.

    Parameters
    ----------
    path : Path
        The file to write: a PNG, an SVG or a PDF, as its name ends.
    floor : PageFloor
        Of the trace; something is live in it.
    measured : sequence of Measurement
        From the top down.
    title : str
        What was measured.

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib.
    """
    figure = new_figure(height=2 + 0.9 * len(measured))
    axes = figure.subplots()
    bars: tuple[tuple[str, str, list[int | None]], ...] = (
        ("page floor", MUTED, [floor.nbytes for _ in measured]),
        ("smallest capacity", WATER, [each.capacity_bytes for each in measured]),
        ("held without a limit", STONE, [each.held_bytes for each in measured]),
    )
    for at, (label, colour, sizes) in enumerate(bars):
        ratios = [None if nbytes is None else nbytes / floor.peak_bytes for nbytes in sizes]
        _add_bars(axes, label, colour, [place + (at - 1) * _BAR for place in range(len(measured))], ratios)
    axes.set_yticks(range(len(measured)), [each.resource for each in measured])
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlim(left=0)
    subtitle = f"peak of live bytes: {format_bytes(floor.peak_bytes)}"
    dress(axes, "memory / peak of live bytes", "", title, subtitle, grid="x")
    figure.legend(loc="outside lower right", ncols=len(bars), frameon=False, labelcolor=INK, fontsize=9)
    write(path, figure, picture_format(path))


def _add_bars(axes: Axes, label: str, colour: str, places: list[float], ratios: list[float | None]) -> None:
    drawn = axes.barh(places, [ratio or 0 for ratio in ratios], height=_BAR * 0.9, color=colour, label=label)
    texts = ["" if ratio is None else f"{ratio:.4f}" for ratio in ratios]
    axes.bar_label(drawn, texts, padding=4, color=INK, fontsize=9)
