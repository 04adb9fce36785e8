"""``cenote top``: who holds GPU memory on this machine, among this user's processes that use cenote."""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from cenote.cli.counters_file import Device, Figures, Process, folder_of_counters, processes
from cenote.cli.terminal import Table, Terminal, open_terminal
from cenote.units import format_bytes

_FIRST_LOOK_SECONDS = 0.2
"""Between the two looks of ``--once``, so that there is a rate."""

_MOST_NAMES = 12
"""Clients and tags that are shown of one process."""

_LONGEST_COMMAND = 60
"""Characters that are shown of a command."""


@dataclass(frozen=True)
class _Look:
    """What was seen at a moment."""

    seconds: float
    processes: dict[int, Process]
    problems: list[str]


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Run the command.

    Parameters
    ----------
    args : argparse.Namespace
        ``process``, ``every``, ``once`` and ``json``.
    terminal : Terminal
        Where the table is shown; with ``json`` everything for people goes to standard error.

    Returns
    -------
    int
        The exit status: 1 if the process that is asked for is not there.
    """
    if args.json:
        terminal = open_terminal(sys.stderr or io.StringIO())
    before = _look()
    if args.json or args.once:
        time.sleep(_FIRST_LOOK_SECONDS)
        now = _look()
        for problem in now.problems:
            terminal.line(problem, "yellow")
        if args.process is not None and args.process not in now.processes:
            raise RuntimeError(_about_missing(args.process))
        if args.json:
            print(json.dumps(_as_json(now, before, args.process), indent=2))
            return 0
        for table in _tables(now, before, args.process):
            terminal.table(*table)
        return 0
    try:
        with terminal.live() as show:
            _show_again_and_again(args, before, show)
    except KeyboardInterrupt:  # the way to end it
        return 0


def _show_again_and_again(
    args: argparse.Namespace, before: _Look, show: Callable[[Sequence[Table], Sequence[str]], None]
) -> NoReturn:
    wait = min(_FIRST_LOOK_SECONDS, args.every)
    while True:
        time.sleep(wait)
        now = _look()
        if args.process is not None and args.process not in now.processes:
            raise RuntimeError(_about_missing(args.process))
        show(list(_tables(now, before, args.process)), now.problems)
        before, wait = now, args.every


def _about_missing(number: int) -> str:
    return f"process {number} is none of this user's that use cenote, or has ended"


def _look() -> _Look:
    folder = folder_of_counters()
    if folder is None:
        raise RuntimeError("CENOTE_COUNTERS=off: the processes of this environment count in their own memory")
    problems: list[str] = []
    seen = {each.number: each for each in processes(folder, problems)}
    return _Look(time.monotonic(), seen, problems)


def _tables(now: _Look, before: _Look, only: int | None) -> Iterator[Table]:
    if only is not None:
        yield from _tables_of(now.processes[only], _rate(now, before, only))
        return
    by_size = sorted(now.processes.items(), key=lambda item: -_largest(item[1]))
    rows = []
    for number, process in by_size:
        for at, (device, has) in enumerate(process.devices.items()):
            rate = f"{_rate(now, before, number):,.0f}" if at == 0 else ""
            rows.append(("" if at else str(number), str(device), *_cells(has), rate))
    columns = (" process", " device", " in use", " held", " most held", " unused", " rate")
    yield Table(f"processes that use cenote: {len(now.processes):,}", columns, rows)
    names = [(str(number), _most(each.clients), _most(each.tags), _in_a_line(each.command)) for number, each in by_size]
    yield Table("who of them holds most", (" process", "client", "tag", "command"), names)


def _cells(has: Device) -> tuple[str, ...]:
    held, most_held = (format_bytes(nbytes) if has.most_held else "" for nbytes in (has.held, has.most_held))
    return (
        format_bytes(has.in_use),
        held,
        most_held,
        "" if has.unused_share is None else f"{has.unused_share:.0%}",
    )


def _largest(process: Process) -> int:
    return max(process.in_use, sum(device.held for device in process.devices.values()))


def _most(figures: dict[str, Figures]) -> str:
    """Name the one that holds most, with its bytes."""
    name, has = next(iter(figures.items()), ("", None))
    return "" if has is None or not has.bytes else f"{name} {format_bytes(has.bytes)}"


def _in_a_line(command: str) -> str:
    """Put a command into one short line: what follows ``python -c`` may be a whole program."""
    line = " ".join(command.split())
    return line if len(line) <= _LONGEST_COMMAND else f"{line[: _LONGEST_COMMAND - 1]}…"


def _rate(now: _Look, before: _Look, number: int) -> float:
    """Allocations a second between two looks."""
    earlier = before.processes.get(number)
    if earlier is None or now.seconds <= before.seconds:
        return 0.0
    return max(0, now.processes[number].allocations - earlier.allocations) / (now.seconds - before.seconds)


def _tables_of(process: Process, rate: float) -> Iterator[Table]:
    devices = [(str(device), *_cells(has), f"{has.growths:,}") for device, has in process.devices.items()]
    yield Table(
        f"process {process.number}: {_in_a_line(process.command)}",
        (" device", " in use", " held", " most held", " unused", " growths"),
        devices,
    )
    for kind, figures in (("client", process.clients), ("tag", process.tags)):
        rows = [
            (
                name,
                format_bytes(has.bytes),
                format_bytes(has.peak_bytes),
                f"{has.blocks:,}",
                f"{has.allocations:,}",
            )
            for name, has in figures.items()
        ]
        if len(rows) > _MOST_NAMES:
            rows = [*rows[:_MOST_NAMES], (f"{len(rows) - _MOST_NAMES:,} others", "", "", "", "")]
        if rows:
            title = f"by client, {rate:,.0f} allocations a second" if kind == "client" else "by tag"
            yield Table(title, (kind, " in use", " most", " blocks", " allocations"), rows)


def _as_json(now: _Look, before: _Look, only: int | None) -> dict[str, Any]:
    return {
        "processes": [
            {
                "process": number,
                "command": process.command,
                "started_ns": process.started_ns,
                "allocations_per_second": _rate(now, before, number),
                "devices": [
                    {"device": device, **asdict(has), "unused_share": has.unused_share}
                    for device, has in process.devices.items()
                ],
                **{
                    kind: [{"name": name, **asdict(has)} for name, has in figures.items()]
                    for kind, figures in (("clients", process.clients), ("tags", process.tags))
                },
            }
            for number, process in sorted(now.processes.items())
            if only in (None, number)
        ],
        "problems": now.problems,
    }
