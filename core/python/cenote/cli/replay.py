"""``cenote replay``: a recorded trace on any resource, to see what it holds and whether the workload fits."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from cenote import mr
from cenote.cli.device import Device, choose_device
from cenote.cli.terminal import Terminal
from cenote.cli.units import format_bytes
from cenote.replay import replay
from cenote.timeline import Steps, draw, from_trace
from cenote.trace import Trace, read

DEFAULT_RESOURCE = "pool:initial=0"


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

    held: list[tuple[int, int]] = []
    with terminal.progress(f"Replaying {args.file.name}", len(recorded)) as show:

        def progress(done: int) -> None:
            show(done)
            held.append((done, resource.state()["held"] or 0))

        result = replay(recorded, resource, progress=progress)

    terminal.line()
    speed = f"{2 * result.allocations / result.seconds:,.0f} a second" if result.seconds else ""
    rows = [
        ("allocations", f"{result.allocations:,}"),
        ("frees", f"{result.frees:,}"),
        ("speed", speed),
        ("most bytes in use", format_bytes(result.peak_bytes)),
        ("most bytes held", format_bytes(max(nbytes for _, nbytes in held))),
        ("never freed by the trace", f"{result.leaked:,} ({format_bytes(result.leaked_bytes)})"),
    ]
    terminal.table("Replay", ("", " "), rows)
    if args.output:
        _draw(terminal, args.output, recorded, held, f"{args.file.name} on {_kinds(resource.specification)}", device)
    return 0


def _kinds(specification: str) -> str:
    """Leave the parameters out of a specification."""
    return " | ".join(word.partition(":")[0].strip() for word in specification.split("|"))


def _draw(
    terminal: Terminal, path: Path, recorded: Trace, held: list[tuple[int, int]], title: str, device: Device
) -> None:
    """Draw the replay in the time of the trace."""
    done, nbytes = np.array(held, dtype=np.int64).T
    times = recorded["time_us"][np.minimum(done, len(recorded) - 1)]
    where = "simulated device" if device.why_simulated else device.name
    subtitle = f"{where}, {format_bytes(device.total_bytes)} · in the time of the recording"
    try:
        draw(path, from_trace(recorded), Steps(times, nbytes), title, subtitle)
        terminal.line(f"Timeline: {path.resolve()}")
    except ImportError:
        terminal.line("No timeline drawn, as matplotlib is missing: pip install 'cenote[cli]'", "yellow")
