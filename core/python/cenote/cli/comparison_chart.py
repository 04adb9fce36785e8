"""The picture of several replays: bytes in use and held over time, and the addresses that were in use, of each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from cenote.logs._picture import GRID, INK, MUTED, STONE, WATER, dress, new_figure, write
from cenote.logs.timeline import picture_format, unit_for
from cenote.logs.trace import Action, Trace, bytes_in_use
from cenote.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW_INCHES = 2.4
_COLUMNS, _ROWS = 900, 240
"""Of the map: moments, and pieces of the addresses."""

_LONGEST_GAP = 64 << 20
"""Between two blocks; longer ones are left out of the map."""


class Curves(NamedTuple):
    """What is drawn of one resource: ``held[i]`` bytes after ``done[i]`` events, and the address of each allocation."""

    resource: str
    done: npt.NDArray[np.int64]
    held: npt.NDArray[np.int64]
    addresses: npt.NDArray[np.uint64]
    why_not: str


def draw(path: Path, name: str, recorded: Trace, played: list[Curves]) -> None:
    """Draw a row for each resource, all on the same axes of time and bytes.

    Parameters
    ----------
    path : Path
        The file; its ending says its kind.
    name : str
        Of the trace.
    recorded : Trace
        Shape ``(events,)``.
    played : list of Curves
        In the order in which they are shown.

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib.
    """
    from matplotlib.ticker import EngFormatter

    written_as = picture_format(path)
    figure = new_figure(_ROW_INCHES * len(played) + 0.9)
    in_use = bytes_in_use(recorded)
    most = max([int(in_use.max(initial=0)), *(int(each.held.max(initial=0)) for each in played)])
    unit_bytes, unit = unit_for(most)
    all_axes = figure.subplots(len(played), 2, squeeze=False, width_ratios=(3, 2))
    live = format_bytes(int(in_use.max(initial=0)))
    figure.suptitle(f"{name}: {live} live at the most", x=0.01, ha="left", color=MUTED, fontsize=11)
    for (curves, addresses), each in zip(all_axes, played, strict=True):
        _draw_curves(curves, in_use, each, unit_bytes, len(recorded))
        dress(curves, "", f"memory [{unit}]", each.resource, each.why_not.partition(", which")[0])
        curves.set_ylim(0, max(most / unit_bytes * 1.08, 1e-3))
        _draw_map(addresses, recorded, each)
    for axes in all_axes.flat:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    for axes in all_axes[-1]:
        axes.set_xlabel("allocations and frees", color=INK)
    all_axes[0][0].legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, labelcolor=INK, fontsize=9
    )
    write(path, figure, written_as)


def _draw_curves(axes: Axes, in_use: npt.NDArray[np.int64], each: Curves, unit_bytes: int, events: int) -> None:
    end = int(each.done[-1]) if each.why_not and len(each.done) else events
    at = np.unique(np.linspace(0, max(end - 1, 0), 4000).astype(int)) if events else np.zeros(0, dtype=int)
    axes.fill_between(at, in_use[at] / unit_bytes, step="post", color=WATER, alpha=0.3, linewidth=0, label="in use")
    axes.step(each.done, each.held / unit_bytes, where="post", color=STONE, linewidth=1.4, label="held")
    if each.why_not:
        axes.axvline(end, color=INK, linewidth=1, linestyle=":")
    axes.set_xlim(0, max(events, 1))


def _draw_map(axes: Axes, recorded: Trace, each: Curves) -> None:
    until = int(each.done[-1]) if each.why_not and len(each.done) else len(recorded)
    drawn, span = address_map(recorded, each.addresses, until)
    if drawn is None:
        axes.set_axis_off()
        return
    from matplotlib.colors import ListedColormap

    extent = (0, len(recorded), 0, span)
    colours = ListedColormap([GRID, WATER])
    axes.imshow(drawn, aspect="auto", origin="lower", extent=extent, cmap=colours, vmin=0, vmax=1, interpolation="none")
    dress(axes, "", "", "", f"addresses in use, {format_bytes(span)} of them", grid="x")
    axes.grid(visible=False)
    axes.set_yticks([])
    axes.tick_params(colors=MUTED)


def address_map(
    recorded: Trace, addresses: npt.NDArray[np.uint64], until: int | None = None
) -> tuple[npt.NDArray[np.bool_] | None, int]:
    """Tell which addresses are in use when.

    Parameters
    ----------
    recorded : Trace
        Shape ``(events,)``.
    addresses : numpy.ndarray
        Of the allocations, in their order, uint64; fewer than there are if the replay ended early.
    until : int, optional
        The event at which it ended.

    Returns
    -------
    numpy.ndarray or None
        Bool, by piece of the addresses and by moment; None if nothing is known.
    int
        Bytes from the lowest address to the highest, without long gaps.
    """
    made = np.flatnonzero((recorded["action"] == Action.ALLOCATE) & (recorded["bytes"] > 0))[: len(addresses)]
    if not len(made):
        return None, 0
    ends = np.minimum(_ends_of(recorded)[made], len(recorded) if until is None else until)
    begins = _without_gaps(addresses, recorded["bytes"][made])
    tops = begins + recorded["bytes"][made]
    span = int(tops.max())
    rows = np.stack([begins * _ROWS // span, (tops - 1) * _ROWS // span + 1])
    columns = np.stack(
        [made * _COLUMNS // len(recorded), np.minimum(ends * _COLUMNS // len(recorded), _COLUMNS - 1) + 1]
    )
    steps = np.zeros((_ROWS + 1, _COLUMNS + 1), dtype=np.int32)
    for row, column, change in ((0, 0, 1), (1, 0, -1), (0, 1, -1), (1, 1, 1)):
        np.add.at(steps, (rows[row], columns[column]), change)
    return steps.cumsum(0).cumsum(1)[:-1, :-1] > 0, span


def _ends_of(recorded: Trace) -> npt.NDArray[np.int64]:
    """Give the event that frees what each event allocates; the last one where none does."""
    ends = np.full(len(recorded), len(recorded), dtype=np.int64)
    live: dict[int, int] = {}
    for event, (action, pointer) in enumerate(
        zip(recorded["action"].tolist(), recorded["pointer"].tolist(), strict=True)
    ):
        if action == Action.ALLOCATE:
            live[pointer] = event
        elif action == Action.FREE and pointer in live:
            ends[live.pop(pointer)] = event
    return ends


def _without_gaps(addresses: npt.NDArray[np.uint64], nbytes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count addresses from the lowest on, without the gaps that are long."""
    order = np.argsort(addresses, kind="stable")
    lowest = int(addresses[order[0]])
    begins = (addresses - np.uint64(lowest)).astype(np.int64)[order]
    tops = np.maximum.accumulate(begins + nbytes[order])
    gaps = np.maximum(begins[1:] - tops[:-1], 0)
    left_out = np.concatenate([[0], np.cumsum(np.where(gaps > _LONGEST_GAP, gaps, 0))])
    placed = np.empty_like(begins)
    placed[order] = begins - left_out
    return placed
