"""``cenote replay``: a recorded trace on any resource, to see what it holds and whether the workload fits."""

from __future__ import annotations

import argparse
import os
from errno import EACCES, EISDIR, ENOENT
from pathlib import Path

import numpy as np

from cenote import mr
from cenote._core.memory_resource import first_in_stack
from cenote.cli import comparison
from cenote.cli.device import Device, choose_device
from cenote.cli.recordings import read_trace
from cenote.cli.terminal import Terminal
from cenote.logs.floor import page_floor
from cenote.logs.replay import ReplayResult, replay
from cenote.logs.timeline import Steps, draw, from_trace
from cenote.logs.trace import Trace
from cenote.units import format_bytes

DEFAULT_RESOURCE = "pool"

PROGRESS_EVERY = 256
"""Events between two moves of the bar."""


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Run the command.

    Parameters
    ----------
    args : argparse.Namespace
        ``file``, ``resource``, ``limit``, ``device``, ``simulate``, ``output``, ``threads`` and ``json``.
    terminal : Terminal
        Where to report.

    Returns
    -------
    int
        The exit status.
    """
    if args.output is not None:
        require_writable(args.output)
    if len(args.resource or ()) > 1:
        return comparison.run(args, terminal)
    if args.json:
        raise ValueError("--json goes with --capacity min, or with several --resource")
    recorded = read_trace(args.file)
    device = choose_device(args.device, args.simulate)
    device.announce(terminal)
    limited = DEFAULT_RESOURCE if args.limit is None else f"{DEFAULT_RESOURCE}:max={args.limit}"
    resource = mr.from_spec(limited if args.resource is None else args.resource[0], device.index)
    terminal.line(f"Resource: {resource.specification}")
    terminal.line()

    pool = first_in_stack(resource, mr.PoolMemoryResource)
    held: list[tuple[int, int]] = []
    with terminal.progress(f"Replaying {args.file.name}", len(recorded)) as show:

        def progress(done: int) -> None:
            if done % PROGRESS_EVERY == 0 or done == len(recorded):
                show(done)
            if pool is not None:
                held.append((done, pool.pool_size()))

        result = replay(
            recorded,
            resource,
            progress=progress,
            progress_every=1 if args.output is not None else PROGRESS_EVERY,
            at_once=args.threads,
        )

    terminal.line()
    rows = [
        ("recorded threads", f"{len(np.unique(recorded['thread'])):,}"),
        ("allocations", f"{result.allocations:,}"),
        ("frees", f"{result.frees:,}"),
        ("never freed by the trace", f"{result.leaked:,} ({format_bytes(result.leaked_bytes)})"),
        ("most bytes in use", format_bytes(result.peak_bytes)),
        ("page floor", format_bytes(page_floor(recorded).nbytes)),
    ]
    if pool is not None:
        rows.append(("most bytes held by the pool", format_bytes(max(nbytes for _, nbytes in held))))
        rows.append(("allocations made by the driver", f"{pool.counters().upstream_allocations:,}"))
    rows.append(("time", f"{result.seconds:.2f} s"))
    terminal.table("Replay", ("", " "), rows)
    for remark in remarks(result):
        terminal.line(remark, "yellow")
    if args.output is not None:
        _draw(terminal, args.output, recorded, held, f"{args.file.name} on {_kinds(resource.specification)}", device)
    return 0


def remarks(result: ReplayResult) -> list[str]:
    """Say what of a trace was not made as it was recorded, and what that does to the figures."""
    lines = []
    if result.failures:
        lines.append(
            f"Allocations that had failed in the recorded run: {result.failures:,}, the largest of "
            f"{format_bytes(result.largest_failure)}. They are not made, and the figures are without them."
        )
    if result.unknown_frees:
        lines.append(
            f"Frees of blocks whose allocation is not in the trace: {result.unknown_frees:,}. They are not made; the "
            "recorded run held more than the figures say."
        )
    if result.wrong_sizes:
        lines.append(f"Frees of another size than their allocation, whose size is taken: {result.wrong_sizes:,}.")
    return lines


def require_writable(path: Path) -> None:
    """Raise OSError now, and not when the replay is done."""
    if path.is_dir():
        raise IsADirectoryError(EISDIR, os.strerror(EISDIR), str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(ENOENT, "there is no such folder", str(path.parent))
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise PermissionError(EACCES, os.strerror(EACCES), str(path))


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
