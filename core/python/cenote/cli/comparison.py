"""``cenote replay`` on several resources: one trace on each of them, side by side."""

from __future__ import annotations

import argparse
import io
import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cenote import driver, mr, sim
from cenote.cli.comparison_chart import Curves, draw
from cenote.cli.device import Device, choose_device
from cenote.cli.limited_resource import bytes_held_by
from cenote.cli.recordings import read_trace
from cenote.cli.simulated_machine import SimulatedMachine
from cenote.cli.terminal import Terminal, open_terminal
from cenote.logs.floor import PageFloor, page_floor
from cenote.logs.replay import ReplayOutOfMemoryError, ReplayResult, first_line_of, replay
from cenote.logs.trace import Trace
from cenote.units import format_bytes

PROGRESS_EVERY = 256
"""Events between two moves of the bar."""

_MOST_LOOKS = 20_000
"""At what a resource holds, in a replay; each takes about a microsecond."""


@dataclass
class Played:
    """A trace on one resource.

    Attributes
    ----------
    resource : str
        Its specification.
    held : list of (int, int)
        Events that were done, and the bytes that the resource held then.
    addresses : list of int
        What the allocations gave, in their order.
    result : ReplayResult or None
        None where it did not complete.
    why_not : str
        What went wrong then.
    driver_calls : int or None
        None on a real device, where nobody counts.
    """

    resource: str
    held: list[tuple[int, int]] = field(default_factory=list)
    addresses: list[int] = field(default_factory=list)
    result: ReplayResult | None = None
    why_not: str = ""
    driver_calls: int | None = None

    @property
    def most_held(self) -> int:
        """The most bytes that it was seen to hold."""
        return max((nbytes for _, nbytes in self.held), default=0)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Run the command.

    Parameters
    ----------
    args : argparse.Namespace
        ``file``, ``resource``, ``device``, ``simulate``, ``output``, ``threads`` and ``json``.
    terminal : Terminal
        Where to report; with ``json`` everything for people goes to standard error.

    Returns
    -------
    int
        The exit status: 1 if the trace does not complete on one of the resources.
    """
    if args.json:
        terminal = open_terminal(sys.stderr or io.StringIO())
    recorded = read_trace(args.file)
    try:
        floor = page_floor(recorded)
    except ValueError as error:
        raise ValueError(f"{args.file}: {error}") from error
    device = choose_device(args.device, args.simulate)
    device.announce(terminal)
    terminal.line()
    with ExitStack() as stack:
        machine = stack.enter_context(SimulatedMachine()) if driver.is_simulated() else None
        played = [_play(each, recorded, device, machine, args.threads, terminal) for each in args.resource]
    terminal.line()
    if args.json:
        print(json.dumps(_as_json(str(args.file), floor, played), indent=2))
    else:
        _show(terminal, args.file.name, recorded, floor, played)
    for each in played:
        if each.why_not:
            terminal.line(f"{each.resource}: {each.why_not}", "yellow")
    if args.output is not None:
        try:
            draw(args.output, args.file.name, recorded, [_curves_of(each) for each in played])
            terminal.line(f"Picture: {args.output.resolve()}")
        except ImportError:
            terminal.line("No picture drawn, as matplotlib is missing: pip install 'cenote[cli]'", "yellow")
    return 0 if all(each.result is not None for each in played) else 1


def _play(
    name: str, recorded: Trace, device: Device, machine: SimulatedMachine | None, at_once: bool, terminal: Terminal
) -> Played:
    played = Played(name)
    if machine is not None:
        machine.resize(machine.device_bytes)
    free_before, _ = driver.memory_info(device.index)
    try:
        resource = mr.from_spec(name, device.index)
    except (MemoryError, RuntimeError) as error:
        played.why_not = first_line_of(error)
        return played
    every = max(1, len(recorded) // _MOST_LOOKS)
    observed = _Observed(resource, played.addresses)
    with terminal.progress(name, len(recorded)) as show:

        def progress(done: int) -> None:
            played.held.append((done, bytes_held_by(resource, device.index, free_before)))
            if done % PROGRESS_EVERY < every or done == len(recorded):
                show(done)

        try:
            played.result = replay(recorded, observed, progress=progress, progress_every=every, at_once=at_once)
        except ReplayOutOfMemoryError as error:
            played.why_not = first_line_of(error)
    if at_once:
        played.addresses.clear()  # in no known order
    if driver.is_simulated():
        played.driver_calls = sum(sim.calls().values())
    return played


class _Observed:
    """A resource whose addresses are written down."""

    def __init__(self, resource: mr.DeviceMemoryResource, addresses: list[int]) -> None:
        self._allocate = resource.allocate
        self.deallocate = resource.deallocate
        self.device = resource.device
        self._add = addresses.append

    def allocate(self, nbytes: int, stream: Any) -> int:
        address = self._allocate(nbytes, stream)
        self._add(address)
        return address


def _curves_of(played: Played) -> Curves:
    done, nbytes = np.array(played.held or [(0, 0)], dtype=np.int64).T
    return Curves(played.resource, done, nbytes, np.array(played.addresses, dtype=np.uint64), played.why_not)


def _show(terminal: Terminal, trace: str, recorded: Trace, floor: PageFloor, played: list[Played]) -> None:
    streams, threads = (len(np.unique(recorded[name])) for name in ("stream", "thread"))
    facts = [
        ("events, streams, threads", f"{len(recorded):,}, {streams:,}, {threads:,}", ""),
        ("peak of live bytes", format_bytes(floor.peak_bytes), f"{1:.4f}"),
        ("page floor", format_bytes(floor.nbytes), f"{floor.ratio:.4f}"),
    ]
    terminal.table(trace, ("", " bytes", " of peak"), facts)
    rows = [
        (
            each.resource,
            format_bytes(each.most_held),
            "" if not floor.peak_bytes else f"{each.most_held / floor.peak_bytes:.4f}",
            "" if each.driver_calls is None else f"{each.driver_calls:,}",
            "fails" if each.result is None else f"{each.result.seconds:.2f} s",
        )
        for each in played
    ]
    terminal.table("What each resource held", ("resource", " most held", " of peak", " driver calls", " time"), rows)


def _as_json(trace: str, floor: PageFloor, played: list[Played]) -> dict[str, Any]:
    return {
        "trace": trace,
        "peak_bytes": floor.peak_bytes,
        "floor": round(floor.ratio, 6),
        "results": [
            {
                "resource": each.resource,
                "completed": each.result is not None,
                "why_not": each.why_not,
                "held_bytes": each.most_held,
                "held_ratio": round(each.most_held / floor.peak_bytes, 6) if floor.peak_bytes else None,
                "driver_calls": each.driver_calls,
                "seconds": None if each.result is None else round(each.result.seconds, 6),
            }
            for each in played
        ],
    }
