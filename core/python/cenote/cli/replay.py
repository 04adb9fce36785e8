"""``cenote replay``: a recorded trace on any resource, to see what it holds and whether the workload fits."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from cenote import mr
from cenote.cli.device import Device, choose_device
from cenote.cli.terminal import Terminal
from cenote.replay import replay
from cenote.timeline import Steps, draw, from_trace
from cenote.trace import Trace, read
from cenote.units import format_bytes

DEFAULT_RESOURCE = "pool:initial=0"

PROGRESS_EVERY = 256
"""Events between two moves of the bar."""


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Run the command.

    Parameters
    ----------
    args : argparse.Namespace
        ``file``, ``resource``, ``limit``, ``device``, ``simulate`` and ``output``.
    terminal : Terminal
        Where to report.

    Returns
    -------
    int
        The exit status.
    """
    recorded = read(args.file)
    device = choose_device(args.device, args.simulate)
    device.announce(terminal)
    limited = f"{DEFAULT_RESOURCE},max={args.limit}" if args.limit else DEFAULT_RESOURCE
    resource = mr.from_spec(args.resource or limited, device.index)
    terminal.line(f"Resource: {resource.specification}")
    terminal.line()

    pool = _pool_of(resource)
    held: list[tuple[int, int]] = []
    with terminal.progress(f"Replaying {args.file.name}", len(recorded)) as show:

        def progress(done: int) -> None:
            if done % PROGRESS_EVERY == 0 or done == len(recorded):
                show(done)
            if pool is not None:
                held.append((done, pool.pool_size()))

        result = replay(recorded, resource, progress=progress, progress_every=1 if args.output else PROGRESS_EVERY)

    terminal.line()
    rows = [
        ("allocations", f"{result.allocations:,}"),
        ("frees", f"{result.frees:,}"),
        ("never freed by the trace", f"{result.leaked:,} ({format_bytes(result.leaked_bytes)})"),
        ("most bytes in use", format_bytes(result.peak_bytes)),
    ]
    if pool is not None:
        rows.append(("most bytes held by the pool", format_bytes(max(nbytes for _, nbytes in held))))
        rows.append(("allocations made by the driver", f"{pool.counters()['upstream_allocations']:,}"))
    rows.append(("time", f"{result.seconds:.2f} s"))
    terminal.table("Replay", ("", " "), rows)
    if args.output:
        _draw(terminal, args.output, recorded, held, f"{args.file.name} on {_kinds(resource.specification)}", device)
    return 0


def _pool_of(resource: mr.DeviceMemoryResource) -> mr.PoolMemoryResource | None:
    """Find the outermost pool of a stack."""
    while not isinstance(resource, mr.PoolMemoryResource):
        if not isinstance(resource, mr.UpstreamResourceAdaptor):
            return None
        resource = resource.upstream_mr
    return resource


def _kinds(specification: str) -> str:
    """Leave the parameters out of a specification."""
    return " | ".join(word.partition(":")[0].strip() for word in specification.split("|"))


def _draw(
    terminal: Terminal, path: Path, recorded: Trace, held: list[tuple[int, int]], title: str, device: Device
) -> None:
    """Draw the replay in the time of the trace; `held` has the events done, and what the pool held after them."""
    steps = None
    if held and len(recorded):
        done, nbytes = np.array(held, dtype=np.int64).T
        steps = Steps(recorded["time_us"][done - 1], nbytes)
    where = "simulated device" if device.why_simulated else device.name
    subtitle = f"{where}, {format_bytes(device.total_bytes)} · in the time of the recording"
    try:
        draw(path, from_trace(recorded), steps, title, subtitle)
        terminal.line(f"Timeline: {path.resolve()}")
    except ImportError:
        terminal.line("No timeline drawn, as matplotlib is missing: pip install 'cenote[cli]'", "yellow")
