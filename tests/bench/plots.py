"""A picture of each case: bars for a few rows, lines where a row has a place on an axis. PNG, matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.cases import Case
from tests.bench.peers import PEERS
from tests.bench.report import number
from tests.bench.session import Cell

DPI = 150
MOST_PANELS = 6
MOST_COLUMNS = 4


def draw_all(cells: Sequence[Cell], folder: Path, subtitle: str) -> dict[str, str]:
    """Draw what was measured into `folder`; the file name of each case. ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    drawn = {}
    for name in dict.fromkeys(cell.case.name for cell in cells):
        measured = [cell for cell in cells if cell.case.name == name and cell.measured]
        if not measured or not measured[0].case.plot:
            continue
        case = measured[0].case
        figure = _lines(case, measured) if case.plot == "lines" else _bars(case, measured)
        figure.suptitle(case.title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        figure.text(0.01, 0.02, f"{subtitle} · {_rounds(measured)}", fontsize=7, color="#777777")
        figure.savefig(folder / f"{name}.png", dpi=DPI)
        drawn[name] = f"{name}.png"
        _close(figure)
    return drawn


def _rounds(cells: Sequence[Cell]) -> str:
    counts = {len(cell.measured) for cell in cells}
    if counts == {1}:
        return "measured once"
    few = f"; {min(counts)} of what took long" if min(counts) < max(counts) else ""
    return f"median and quartiles of {max(counts)} rounds{few}"


def _close(figure: Any) -> None:
    from matplotlib import pyplot

    pyplot.close(figure)


def _panels(count: int, width: float, height: float, beside: float) -> tuple[Any, list[Any]]:
    """Panels of this size on the same axes, with room `beside` them and for the subtitle below; inches."""
    from matplotlib import pyplot

    columns = count if count <= MOST_COLUMNS else -(-count // 2)
    lines = -(-count // columns)
    subtitle, total = 0.2, 1.1 + lines * height
    figure, axes = pyplot.subplots(
        lines,
        columns,
        figsize=(beside + columns * width, total),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    figure.get_layout_engine().set(rect=(0, subtitle / total, 1, 1 - subtitle / total))
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:count])


def _bars(case: Case, cells: Sequence[Cell]) -> Any:
    """A panel a row, a bar a peer, the quartiles as a whisker; the lowest on top."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    rows = _rows_of_bars(cells)
    peers = [peer for peer in case.peers if any(cell.peer == peer for cell in cells)]
    order = sorted(peers, key=lambda peer: _median_of(cells, rows[0], peer), reverse=True)
    figure, axes = _panels(len(rows), 2.6, 0.4 + 0.34 * len(order), beside=3.0)
    wide = _span(cells) > 10
    for axis, row in zip(axes, rows, strict=True):
        for place, peer in enumerate(order):
            cell = next((c for c in cells if c.row.label == row and c.peer == peer), None)
            if cell is None or cell.spread is None:
                continue
            spread = cell.spread
            axis.barh(place, spread.median, color=PEERS[peer].color, height=0.7)
            axis.plot([spread.lower, spread.upper], [place, place], color="#222222", linewidth=1)
            axis.annotate(
                number(spread.median),
                (max(spread.median, spread.upper), place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        axis.set_yticks(range(len(order)), [PEERS[peer].title for peer in order], fontsize=8)
        axis.tick_params(axis="y", length=0)
        axis.set_title(row, fontsize=9)
        if wide:
            axis.set_xscale("log")
            axis.set_xlim(*_log_limits(cells, rows))
        else:
            axis.margins(x=0.2)
            axis.xaxis.set_major_locator(MaxNLocator(4))
            axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axis.tick_params(axis="x", labelsize=7)
        if axis.get_subplotspec().is_last_row():
            axis.set_xlabel(_axis_label(case), fontsize=8)
        axis.grid(axis="x", color="#e0e0e0", linewidth=0.6)
        axis.set_axisbelow(True)
    return figure


def _axis_label(case: Case) -> str:
    return f"{case.unit} an operation" if case.unit == "ns" else case.unit


def _log_limits(cells: Sequence[Cell], rows: Sequence[str]) -> tuple[float, float]:
    """From below the shortest bar, so that it is seen, to where the longest one's number ends."""
    medians = [
        cell.spread.median for cell in cells if cell.row.label in rows and cell.spread and cell.spread.median > 0
    ]
    return 0.5 * min(medians), 4 * max(medians)


def _rows_of_bars(cells: Sequence[Cell]) -> list[str]:
    """The rows that a picture has room for: of a pair those on a stream of its own library."""
    rows = list(dict.fromkeys(cell.row.label for cell in cells))
    own = [row for row in rows if row.endswith("a stream of its own library")]
    return (own or rows)[:MOST_PANELS]


def _median_of(cells: Sequence[Cell], row: str, peer: str) -> float:
    spreads = [cell.spread for cell in cells if cell.peer == peer and cell.row.label == row]
    return spreads[0].median if spreads and spreads[0] else float("inf")


def _span(cells: Sequence[Cell]) -> float:
    medians = [cell.spread.median for cell in cells if cell.spread and cell.spread.median > 0]
    return max(medians) / min(medians) if medians else 1.0


def _lines(case: Case, cells: Sequence[Cell]) -> Any:
    """A line a peer with a band between its quartiles; rows that differ by more than their place get a panel each."""
    series = list(dict.fromkeys(_series(cell) for cell in cells))
    figure, axes = _panels(len(series), 4.2, 3.5, beside=3.4)
    for axis, words in zip(axes, series, strict=True):
        for peer in case.peers:
            points = sorted(
                (cell.row.x, cell.spread)
                for cell in cells
                if cell.peer == peer and _series(cell) == words and cell.spread
            )
            if not points:
                continue
            x = [place for place, _ in points]
            is_ours = peer == "cenote-pool"
            axis.fill_between(
                x, [s.lower for _, s in points], [s.upper for _, s in points], color=PEERS[peer].color, alpha=0.15
            )
            axis.plot(
                x,
                [s.median for _, s in points],
                color=PEERS[peer].color,
                label=PEERS[peer].title,
                linewidth=2.6 if is_ours else 1.5,
                linestyle="--" if PEERS[peer].is_floor else "-",
                marker="o",
                markersize=5 if is_ours else 3.5,
                zorder=3 if is_ours else 2,
            )
        axis.set_xscale("log", base=2 if case.name == "threads" else 10)
        axis.set_yscale("log")
        axis.set_xlabel(case.x_label, fontsize=9)
        axis.set_title(words, fontsize=10)
        axis.grid(color="#e8e8e8", linewidth=0.6)
        if case.name == "threads":
            ticks = sorted({int(cell.row.x) for cell in cells})
            axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axes[0].set_ylabel(_axis_label(case), fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
    return figure


def _series(cell: Cell) -> str:
    return cell.row.label.partition(", ")[2] if ", " in cell.row.label else ""
