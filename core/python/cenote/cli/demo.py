"""``cenote demo``: one pool under every framework there is, or under a recorded run of one where there is no GPU."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cenote
from cenote import mr, trace
from cenote.cli.device import Device, choose_device
from cenote.cli.figures import report_savings, report_usage
from cenote.cli.gpu_work import WORK, Done, work
from cenote.cli.observed_pool import ObservedPool
from cenote.cli.replay import remarks
from cenote.cli.terminal import Terminal
from cenote.logs.replay import Replay, streams_of
from cenote.registry import Client
from cenote.units import format_bytes

EXAMPLE_NAME = "a graph network training under PyTorch, recorded on an H100"

BUFFER_BYTES = 64 * 1024**2
"""The buffer that cenote itself holds beside the others."""


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Run the command.

    Parameters
    ----------
    args : argparse.Namespace
        ``device``, ``simulate``, ``output`` and ``trace``.
    terminal : Terminal
        Where to report.

    Returns
    -------
    int
        The exit status.
    """
    device = choose_device(args.device, args.simulate)
    device.announce(terminal)
    recorded = trace.read(args.trace or trace.example()) if device.why_simulated or args.trace is not None else None
    args.output.mkdir(parents=True, exist_ok=True)
    observed = ObservedPool(device.index, args.output)
    terminal.line(f"Its pool: {observed.resource.specification}")
    terminal.line()
    if recorded is None:
        what = _work(terminal, device, observed)
    else:
        name = args.trace.name if args.trace else EXAMPLE_NAME
        client = "recorded trace" if args.trace else "pytorch (recorded)"
        what = _replay(terminal, device, observed, recorded, name, client)
    counts = observed.resource.allocation_counts
    report_savings(terminal, observed.pool.counters(), counts.peak_bytes, observed.pool.pool_size())
    _write_files(terminal, device, observed, args.output, what, by_event=recorded is None)
    return 0


def _replay(
    terminal: Terminal, device: Device, observed: ObservedPool, recorded: trace.Trace, name: str, client: str
) -> str:
    """Replay a trace as a client of the pool, and report at its peak, while everything is alive; say what was done."""
    terminal.line(f"Replaying {name}")
    replay = Replay(_ClientResource(client, device.index, observed), streams_of(recorded, device.index))
    peak = int(trace.bytes_in_use(recorded).argmax()) + 1 if len(recorded) else 0
    previous = mr.set_per_device_resource(device.index, observed.resource)
    try:
        with terminal.progress("Allocations and frees", len(recorded)) as progress:
            buffer = cenote.DeviceBuffer(size=BUFFER_BYTES, mr=observed.resource)
            replay.play(recorded, stop=peak, progress=progress)
            at_peak = cenote.usage()
            replay.play(recorded, start=peak, progress=progress)
            del buffer
    finally:
        result = replay.finish()
        if previous is None:
            mr.reset_per_device_resource(device.index)
        else:
            mr.set_per_device_resource(device.index, previous)
    terminal.line()
    report_usage(terminal, "Who holds the pool, at the peak of the replay", at_peak)
    for remark in remarks(result):
        terminal.line(remark, "yellow")
    return f"replay of {name}"


def _work(terminal: Terminal, device: Device, observed: ObservedPool) -> str:
    """Put the frameworks onto the pool, let each work, and report while they hold their arrays; say what was done."""
    terminal.line("Putting the frameworks onto it; importing them takes a moment")
    installed = {row.framework: row for row in cenote.install(observed.resource, tuple(WORK), device.index)}
    buffer = cenote.DeviceBuffer(size=BUFFER_BYTES, mr=observed.resource)
    done: list[Done] = []
    with observed.watch(), terminal.progress("Work in each framework", len(WORK)) as progress:
        for count, (framework, row) in enumerate(installed.items(), start=1):
            done.append(work(framework, device.index) if row.installed else Done(framework, False, row.detail))
            progress(count)
    terminal.line()
    rows = [(each.framework, "yes" if each.on_pool else "no", each.what) for each in done]
    terminal.table("What worked on the pool", ("framework", "on the pool", "what it did, or why not"), rows)
    report_usage(terminal, "Who holds the pool, while all hold their arrays", cenote.usage())
    del buffer
    worked = [each.framework for each in done if each.on_pool]
    return f"{', '.join(worked) or 'no framework'} and cenote on one pool"


class _ClientResource:
    """The current resource of a device, drawn from under a client's name."""

    def __init__(self, name: str, device: int, observed: ObservedPool) -> None:
        self._client = Client(name)
        self._device = device
        self._observed = observed

    def allocate(self, nbytes: int, stream: Any) -> int:
        address: int = self._client.allocate(nbytes, stream, self._device)
        self._observed.look()
        return address

    def deallocate(self, ptr: int, nbytes: int, stream: Any) -> None:
        self._client.deallocate(ptr, stream)
        self._observed.look()


def _write_files(
    terminal: Terminal, device: Device, observed: ObservedPool, folder: Path, what: str, by_event: bool
) -> None:
    log, held = observed.files()
    picture = folder.resolve() / "timeline.png"
    simulated = "simulated device" if device.why_simulated else device.name
    subtitle = f"{what} · {simulated}, {format_bytes(device.total_bytes)}"
    try:
        # Frameworks load their kernels for seconds and allocate for milliseconds; a replay has no such pauses.
        observed.draw(picture, f"Memory of device {device.index}", subtitle, by_event)
        drawn = str(picture)
    except ImportError:
        drawn = "not drawn, as matplotlib is missing: pip install 'cenote[cli]'"
    terminal.line("Written", "bold")
    terminal.line(f"  log of the pool    {log}")
    terminal.line(f"  bytes that it held {held}")
    terminal.line(f"  timeline           {drawn}")
