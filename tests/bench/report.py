"""A run as JSON, with everything that was measured, and as a page of Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tests.bench.cases import Case
from tests.bench.goals import GOALS, Measured
from tests.bench.peers import PEERS
from tests.bench.session import Cell, Session
from tests.bench.spread import STEADY, ratio

SCHEMA = 1


def ratio_to_baseline(cell: Cell, cells: Sequence[Cell]) -> float | None:
    """How many times the case's baseline a cell is, round by round; None for the baseline and where it is not there."""
    for base in cells:
        if base.peer == cell.case.baseline != cell.peer and (base.case, base.row) == (cell.case, cell.row):
            rounds = [(a, b) for a, b in zip(cell.values, base.values, strict=False) if a is not None and b is not None]
            return ratio([a for a, _ in rounds], [b for _, b in rounds])
    return None


def as_record(session: Session, machine: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, for ``bench.json``."""
    return {
        "schema": SCHEMA,
        "machine": dict(machine),
        "options": dict(options),
        "rounds": session.rounds,
        "versions": {peer: version for peer, version in sorted(session.versions.items()) if version},
        "notes": session.notes,
        "moved": moved_floors(session.cells),
        "goals": [
            {"what": goal.what, "limit": goal.limit, "unit": goal.unit, "value": goal.value(Measured(session.cells))}
            for goal in GOALS
        ],
        "cells": [_cell_record(cell, session.cells) for cell in session.cells],
    }


def _cell_record(cell: Cell, cells: Sequence[Cell]) -> dict[str, Any]:
    spread = cell.spread
    return {
        "case": cell.case.name,
        "row": cell.row.label,
        "peer": cell.peer,
        "parameters": dict(cell.row.parameters),
        "unit": cell.case.unit,
        "values": cell.values,
        "median": spread.median if spread else None,
        "lower": spread.lower if spread else None,
        "upper": spread.upper if spread else None,
        "ratio": ratio_to_baseline(cell, cells),
        "figures": {name: statistics.median(values) for name, values in cell.figures.items()},
        "missing": cell.missing,
    }


def moved_floors(cells: Sequence[Cell]) -> list[str]:
    """The floors that were not the same all the time: the machine did something else, or changed its clock."""
    return [
        f"{cell.row.label if cell.peer == 'machine' else f'{PEERS[cell.peer].title}, {cell.case.name}'} "
        f"({cell.spread.relative_width:.0%})"
        for cell in cells
        if cell.peer in ("machine", "python") and cell.spread and not cell.spread.is_steady
    ]


def as_markdown(
    session: Session, machine: Mapping[str, str], command: str, simulated: bool, plots: Mapping[str, str]
) -> str:
    """The page; `plots` has the file of each case's plot."""
    lines = ["# Benchmarks\n"]
    if simulated:
        lines.append(
            "**On the simulated device: each driver call costs what the simulation costs. These figures say nothing "
            "about a GPU.**\n"
        )
    lines += [
        f"Written by `{command}` on {machine['date']}: {machine['device']}, driver {machine['driver']} (CUDA "
        f"{machine['CUDA of the driver']}), {machine['cores']} cores of {machine['processor']}, load before "
        f"{machine['load before']}, Python {machine['Python']}.\n",
        f"Versions: {_versions(session, machine)}.\n",
        "Every cell is the median over the rounds ± half the distance of its quartiles; one without ± was measured "
        "once, because it took so long. Each round asks every peer once, the peers of one row one after the other, in "
        f"another order each time ({_rounds(session)}). A ratio (×) is the median of the ratios round by round, over "
        "whom each section says. cenote async and RMM cuda_async are the driver's `cuMemAllocAsync` with a pool that "
        "keeps everything. *Captures announced* is with `CENOTE_CAPTURES=announced`: the program promises to tell "
        "cenote before it captures a graph, so that streams need not be asked.\n",
    ]
    lines += _goals(session.cells)
    cases = list(dict.fromkeys(cell.case.name for cell in session.cells))
    for name in cases:
        cells = [cell for cell in session.cells if cell.case.name == name]
        lines += _case(cells[0].case, cells, plots.get(name, ""))
        if name == "floor":
            lines.append(_steadiness(session.cells))
    lines += _missing(session.cells)
    if session.notes:
        lines += ["## Notes\n", *(f"* {note}" for note in session.notes)]
    return "\n".join(lines).rstrip() + "\n"


def number(value: float) -> str:
    """Three digits where they mean something: 0.0312, 4.21, 31.2, 1,234."""
    if value == 0:
        return "0"
    magnitude = abs(value)
    if magnitude >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _versions(session: Session, machine: Mapping[str, str]) -> str:
    versions = {f"cenote {machine['cenote']}": None}
    for peer, text in sorted(session.versions.items()):
        if text:
            words = text if any(c.isalpha() for c in text) else f"{peer} {text}"
            versions.update(dict.fromkeys(words.split(", ")))
    return ", ".join(versions)


def _rounds(session: Session) -> str:
    counts = sorted(set(session.rounds.values()))
    if len(counts) == 1:
        return f"{counts[0]} rounds"
    return ", ".join(f"{count} rounds of {section}" for section, count in session.rounds.items())


def _goals(cells: Sequence[Cell]) -> list[str]:
    measured = Measured(cells)
    rows = []
    for goal in GOALS:
        value = goal.value(measured)
        if value is None:
            continue
        mark = "✓" if goal.is_met(value) else "✗"
        sign = "≥" if goal.least else "≤"
        unit = goal.unit and " " + goal.unit
        rows.append(f"| {goal.what} | {sign} {number(goal.limit)}{unit} | {number(value)}{unit} | {mark} |")
    if not rows:
        return []
    return ["## What cenote's pool is to reach\n", "| | goal | here | |", "|---|--:|--:|:-:|", *rows, ""]


def _case(case: Case, cells: Sequence[Cell], plot: str) -> list[str]:
    over = f"; × is over {PEERS[case.baseline].title}" if case.baseline else ""
    lines = [f"## {case.title}\n", f"{case.what} `{case.name}`, {case.unit}{over}.\n"]
    peers = [peer for peer in case.peers if any(cell.peer == peer and cell.measured for cell in cells)]
    if not peers:
        return [*lines, f"Not run: {', '.join(dict.fromkeys(cell.missing for cell in cells))}.\n"]
    if plot:
        lines.append(f"![{case.title}]({plot})\n")
    rows = list(dict.fromkeys(cell.row.label for cell in cells))
    at = {(cell.row.label, cell.peer): cell for cell in cells}
    if len(rows) > 1 and len(peers) > 1:
        lines.append("| | " + " | ".join(PEERS[peer].title for peer in peers) + " |")
        lines.append("|---|" + "--:|" * len(peers))
        lines += [
            f"| {row} | " + " | ".join(_text(at.get((row, peer)), cells) for peer in peers) + " |" for row in rows
        ]
    else:
        lines += ["| | " + case.unit + " |", "|---|--:|"]
        lines += [
            f"| {row if len(peers) == 1 else PEERS[peer].title} | {_text(at.get((row, peer)), cells)} |"
            for row in rows
            for peer in peers
        ]
    return [*lines, "", *_figures(cells)]


def _text(cell: Cell | None, cells: Sequence[Cell]) -> str:
    if cell is None or cell.spread is None:
        return "—"
    spread = cell.spread
    text = number(spread.median)
    if spread.count > 1:
        text += f" ± {number((spread.upper - spread.lower) / 2)}"
    times = ratio_to_baseline(cell, cells)
    return f"{text} · {number(times)}×" if times is not None else text


def _figures(cells: Sequence[Cell]) -> list[str]:
    names = list(dict.fromkeys(name for cell in cells for name in cell.figures))
    with_figures = [cell for cell in cells if any(any(values) for values in cell.figures.values())]
    if not with_figures:
        return []
    lines = [
        "<details><summary>Counted beside it, an operation; what is not named counted nothing</summary>\n",
        "| | peer | " + " | ".join(names) + " |",
        "|---|---|" + "--:|" * len(names),
    ]
    for cell in with_figures:
        values = [number(statistics.median(cell.figures[name])) if name in cell.figures else "" for name in names]
        lines.append(f"| {cell.row.label} | {PEERS[cell.peer].title} | " + " | ".join(values) + " |")
    return [*lines, "\n</details>\n"]


def _steadiness(cells: Sequence[Cell]) -> str:
    moved = moved_floors(cells)
    if not moved:
        return f"No floor moved by more than {STEADY:.0%} between the rounds.\n"
    return (
        f"**Moved by more than {STEADY:.0%} between the rounds** (the quartiles, over the median): {', '.join(moved)}. "
        "The machine was not quiet: trust ratios, not figures.\n"
    )


def _missing(cells: Sequence[Cell]) -> list[str]:
    reasons: dict[str, dict[str, list[str]]] = {}
    for cell in cells:
        if cell.missing:
            rows = reasons.setdefault(cell.missing, {}).setdefault(cell.peer, [])
            rows.append(f"{cell.case.name} ({cell.row.label})")
    if not reasons:
        return []
    lines = ["## Not run, or not to the end\n"]
    for why, peers in reasons.items():
        whom = []
        for peer, rows in peers.items():
            everything = [cell for cell in cells if cell.peer == peer]
            cases = sorted({row.partition(" (")[0] for row in rows})
            whom.append(
                f"{peer} (everything)"
                if len(rows) == len(everything)
                else f"{peer} ({', '.join(cases) if len(rows) > 4 else ', '.join(rows)})"
            )
        lines.append(f"* {why}: {'; '.join(whom)}")
    return [*lines, ""]
