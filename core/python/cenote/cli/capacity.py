"""``cenote replay --capacity min``: the smallest memory with which each resource completes a recorded trace."""

from __future__ import annotations

import argparse
import io
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from cenote import driver
from cenote.cli.capacity_chart import draw
from cenote.cli.capacity_measurement import Measurement, measure
from cenote.cli.device import choose_device
from cenote.cli.limited_resource import LimitedResource, Way
from cenote.cli.recordings import read_trace
from cenote.cli.replay import DEFAULT_RESOURCE, remarks, require_writable
from cenote.cli.simulated_machine import SimulatedMachine
from cenote.cli.terminal import Terminal, open_terminal
from cenote.logs.floor import PageFloor, page_floor
from cenote.logs.trace import Trace
from cenote.units import format_bytes

DEFAULT_RESOURCES = (DEFAULT_RESOURCE, "async", "cuda")
"""What is compared if nothing is asked for."""


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Run the command.

    Parameters
    ----------
    args : argparse.Namespace
        ``file``, ``resource``, ``limit``, ``device``, ``simulate``, ``output`` and ``json``.
    terminal : Terminal
        Where to report; with ``json`` everything for people goes to standard error.

    Returns
    -------
    int
        The exit status: 1 if the trace does not complete on one of the resources, however much that has.
    """
    if args.limit is not None:
        raise ValueError("--limit goes without --capacity min, which finds the limit")
    if args.threads:
        raise ValueError("--threads goes without --capacity min, whose replays must be the same each time")
    if args.output is not None:
        require_writable(args.output)
    if args.json:
        terminal = open_terminal(sys.stderr or io.StringIO())
    recorded = read_trace(args.file)
    floor = _floor(args.file, recorded)
    device = choose_device(args.device, args.simulate)
    with ExitStack() as stack:
        machine = stack.enter_context(SimulatedMachine()) if driver.is_simulated() else None
        names = args.resource or (DEFAULT_RESOURCES if machine is not None else (DEFAULT_RESOURCE,))
        limited = [LimitedResource(each, device.index, machine) for each in names]
        device.announce(terminal)
        if len(names) < len(args.resource or DEFAULT_RESOURCES):
            terminal.line(
                "async and cuda are left out, as the size of a simulated device limits them: --simulate", "dim"
            )
        terminal.line()
        measured = [measure(each, recorded, floor, terminal) for each in limited]
    terminal.line()
    if args.json:
        print(json.dumps(as_json(str(args.file), floor, measured), indent=2))
    else:
        _show(terminal, args.file.name, recorded, floor, measured)
    for played in [each.played for each in measured if each.played is not None][:1]:
        for remark in remarks(played):
            terminal.line(remark, "yellow")
    for each in measured:
        for remark in each.remarks:
            terminal.line(f"{each.resource}: {remark}", "yellow")
    if args.output is not None:
        _draw(terminal, args.output, args.file.name, floor, measured)
    return 0 if all(each.completed for each in measured) else 1


def as_json(trace: str, floor: PageFloor, measured: list[Measurement]) -> dict[str, Any]:
    """Give the figures with stable keys. Ratios are over the peak of live bytes; what is unknown is None.

    Parameters
    ----------
    trace : str
        The file, as the user wrote it.
    floor : PageFloor
        The page floor of the trace, and the peak of its live bytes.
    measured : list of Measurement
        In the order in which they were asked for.

    Returns
    -------
    dict
        ``trace``, ``peak_bytes``, ``floor`` (a ratio) and ``results``.
    """
    return {
        "trace": trace,
        "peak_bytes": floor.peak_bytes,
        "floor": round(floor.ratio, 6),
        "results": [
            {
                "resource": each.resource,
                "capacity_bytes": each.capacity_bytes,
                "capacity_ratio": _ratio(each.capacity_bytes, floor),
                "held_ratio": _ratio(each.held_bytes, floor),
                "completed": each.completed,
                "driver_calls": each.driver_calls,
                "seconds": None if each.played is None else round(each.played.seconds, 6),
            }
            for each in measured
        ],
    }


def _floor(file: Path, recorded: Trace) -> PageFloor:
    try:
        floor = page_floor(recorded)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if floor.peak_bytes == 0:
        raise ValueError(
            f"{file}: nothing is allocated in this trace, so that any device is large enough; record a run that "
            "allocates, and flush its log at the end"
        )
    return floor


def _show(terminal: Terminal, trace: str, recorded: Trace, floor: PageFloor, measured: list[Measurement]) -> None:
    streams, threads = (len(np.unique(recorded[name])) for name in ("stream", "thread"))
    facts = [
        ("events, streams, threads", f"{len(recorded):,}, {streams:,}, {threads:,}", ""),
        ("peak of live bytes", format_bytes(floor.peak_bytes), f"{1:.4f}"),
        ("page floor", format_bytes(floor.nbytes), f"{floor.ratio:.4f}"),
    ]
    terminal.table(trace, ("", " bytes", " of peak"), facts)
    columns = ("resource", " capacity", " of peak", " held", " of peak", " calls", " time")
    rows = [_row(each, floor) for each in measured]
    terminal.table("The smallest capacity, and what is held without a limit", columns, rows)
    for way in Way:
        if names := [each.resource for each in measured if each.way is way]:
            terminal.line(f"Limited by {way.value}: {', '.join(names)}", "dim")


def _row(each: Measurement, floor: PageFloor) -> tuple[str, ...]:
    return (
        each.resource,
        format_bytes(each.capacity_bytes) if each.capacity_bytes is not None else "none" if each.completed else "fails",
        _text_of_ratio(each.capacity_bytes, floor),
        "" if each.held_bytes is None else format_bytes(each.held_bytes),
        _text_of_ratio(each.held_bytes, floor),
        "" if each.driver_calls is None else f"{sum(each.driver_calls.values()):,}",
        "" if each.played is None else f"{each.played.seconds:.2f} s",
    )


def _ratio(nbytes: int | None, floor: PageFloor) -> float | None:
    return None if nbytes is None else round(nbytes / floor.peak_bytes, 6)


def _text_of_ratio(nbytes: int | None, floor: PageFloor) -> str:
    return "" if nbytes is None else f"{nbytes / floor.peak_bytes:.4f}"


def _draw(terminal: Terminal, path: Path, trace: str, floor: PageFloor, measured: list[Measurement]) -> None:
    try:
        draw(path, floor, measured, f"How much memory {trace} takes")
        terminal.line(f"Chart: {path.resolve()}")
    except ImportError:
        terminal.line("No chart drawn, as matplotlib is missing: pip install 'cenote[cli]'", "yellow")
