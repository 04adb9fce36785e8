"""The timeline: a plot of the bytes in use, and of what a pool holds, against time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cenote.logs._picture import INK, STONE, WATER, dress, new_figure, write
from cenote.logs.trace import Trace, bytes_in_use, path_argument, trace_argument
from cenote.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FORMATS", "Steps", "draw", "from_trace", "picture_format"]

FORMATS = ("png", "svg", "pdf")
"""What `draw` writes, by the ending of the file's name."""

_UNITS = [(1024**4, "TiB"), (1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"), (1, "B")]


class Steps(NamedTuple):
    """Bytes that change in steps: ``nbytes[i]`` from ``time_us[i]`` (microseconds) on; both int64, shape ``(n,)``."""

    time_us: npt.NDArray[np.int64]
    nbytes: npt.NDArray[np.int64]


_NOTHING = Steps(np.zeros(1, np.int64), np.zeros(1, np.int64))


def from_trace(trace: Trace) -> Steps:
    """Follow the bytes in use through a trace.

    Parameters
    ----------
    trace : Trace
        What `cenote.logs.trace.read` returned, for instance from the file that a logging adaptor wrote.

    Returns
    -------
    Steps
    """
    return Steps(trace_argument(trace)["time_us"], bytes_in_use(trace))


def picture_format(path: str | os.PathLike[str]) -> str:
    """Give the one of `FORMATS` that the name of a file asks for; ValueError if it asks for none of them."""
    ending = path_argument(path).suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise ValueError(f"the picture '{path}' must have a name that ends in one of {known}")
    return ending


def unit_for(most: int) -> tuple[int, str]:
    """Give the unit, in bytes and by its name, for an axis up to so many bytes."""
    return next((size, name) for size, name in _UNITS if most >= 2 * size or size == 1)


def draw(
    path: str | os.PathLike[str],
    in_use: Steps,
    held: Steps | None = None,
    title: str = "",
    subtitle: str = "",
    by_event: bool = False,
) -> None:
    """Draw bytes against time, or against the number of allocations and frees.

    Parameters
    ----------
    path : path-like
        The file to write: a PNG, an SVG or a PDF, as its name ends in ``.png``, ``.svg`` or ``.pdf``.
    in_use : Steps
        Bytes handed out; drawn as an area, with its peak marked.
    held : Steps, optional
        Bytes that the pool holds, on the same clock; drawn as a line.
    title, subtitle : str, optional
        What was measured, and on which device.
    by_event : bool, optional
        Give every allocation and free the same width: for programs that are idle most of the time.

    Raises
    ------
    TypeError
        If `path` is no path, or a curve no `Steps`.
    ValueError
        If the name of the file has another ending.
    ModuleNotFoundError
        Without matplotlib; ``pip install 'cenote[cli]'`` brings it.
    """
    written_as = picture_format(path)
    for name, curve in (("in_use", in_use), ("held", held)):
        if not isinstance(curve, Steps) and not (name == "held" and curve is None):
            raise TypeError(f"{name} must be Steps, not {type(curve).__name__}")
    figure = new_figure(height=4.5)
    if by_event:
        in_use, held = _on_event_clock(in_use, held)
    curves = [curve for curve in (in_use, held) if curve is not None and len(curve.time_us)] or [_NOTHING]
    start = int(curves[0].time_us[0])  # what happened before the first allocation is of no interest
    end = max(int(curve.time_us[-1]) for curve in curves)
    most = max(int(curve.nbytes.max()) for curve in curves)
    unit_bytes, unit = unit_for(most)
    tick_us, x_label = (1_000_000, "time [s]") if end - start >= 2_000_000 else (1_000, "time [ms]")
    if by_event:
        tick_us, x_label = 1, "allocations and frees"

    def scaled(curve: Steps) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Give both axes in their units; after its last step a curve goes on to the end."""
        curve = curve if len(curve.time_us) else _NOTHING
        time_us = np.append(curve.time_us, end) - start
        return np.maximum(time_us, 0) / tick_us, np.append(curve.nbytes, curve.nbytes[-1]) / unit_bytes

    axes = figure.subplots()
    times, values = scaled(in_use)
    axes.fill_between(times, values, step="post", color=WATER, alpha=0.25, linewidth=0)
    axes.step(times, values, where="post", color=WATER, linewidth=0.8, label="in use")
    if held is not None:
        axes.step(*scaled(held), where="post", color=STONE, linewidth=1.6, label="held by the pool")
    _mark_peak(axes, times, values, most / unit_bytes, unit_bytes)
    dress(axes, x_label, f"memory [{unit}]", title, subtitle)
    axes.legend(loc="upper right", bbox_to_anchor=(1.01, 1.14), ncols=2, frameon=False, labelcolor=INK, fontsize=9)
    axes.set_xlim(0, max((end - start) / tick_us, 1e-3))
    axes.set_ylim(0, max(most / unit_bytes * 1.12, 1e-3))
    write(path, figure, written_as)


def _on_event_clock(in_use: Steps, held: Steps | None) -> tuple[Steps, Steps | None]:
    """Both curves against the number of events of the first."""
    count = np.arange(len(in_use.time_us), dtype=np.int64)
    if held is not None:
        held = Steps(np.searchsorted(in_use.time_us, held.time_us).astype(np.int64), held.nbytes)
    return Steps(count, in_use.nbytes), held


def _mark_peak(axes: Axes, times: npt.NDArray[Any], values: npt.NDArray[Any], most: float, unit_bytes: int) -> None:
    """Mark it by a point and a label, which hides no line: above the highest one where that is near."""
    at = int(values.argmax())
    is_near = most < 1.25 * values[at]
    late = times[at] > 0.75 * max(times[-1], 1e-3)
    axes.plot(times[at], values[at], "o", color=WATER, markersize=5, markeredgecolor="white", zorder=5)
    axes.annotate(
        f"peak {format_bytes(round(values[at] * unit_bytes))}",
        (times[at], most if is_near else values[at]),
        xytext=(-8 if late else 8, 5),
        textcoords="offset points",
        ha="right" if late else "left",
        color=INK,
        fontsize=9,
        fontweight="bold",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
        zorder=4,
    )
