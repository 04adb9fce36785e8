"""What the commands report: who holds how much of a pool, and what the pool saved."""

from __future__ import annotations

from collections.abc import Mapping

from cenote import mr
from cenote.cli.terminal import Terminal
from cenote.registry import Usage
from cenote.units import format_bytes


def report_usage(terminal: Terminal, title: str, usage: Mapping[str, Usage]) -> None:
    """Show who holds how many bytes.

    Parameters
    ----------
    terminal : Terminal
        Where to.
    title : str
        Of which pool, and when.
    usage : mapping
        What `cenote.usage` returned. Clients that never allocated are left out.
    """
    clients = {name: used for name, used in usage.items() if used.total_allocations}
    rows = [
        (
            name,
            format_bytes(used.bytes),
            format_bytes(used.peak_bytes),
            f"{used.allocations:,}",
            f"{used.total_allocations:,}",
        )
        for name, used in sorted(clients.items(), key=lambda item: -item[1].bytes)
    ]
    total = (
        "together",
        format_bytes(sum(used.bytes for used in clients.values())),
        "",
        f"{sum(used.allocations for used in clients.values()):,}",
        f"{sum(used.total_allocations for used in clients.values()):,}",
    )
    terminal.table(title, ("client", " bytes now", " peak", " allocations now", " in total"), rows, total)


def report_savings(terminal: Terminal, counters: mr.PoolCounters, peak_bytes: int, held_bytes: int) -> None:
    """Show how many driver calls a pool saved.

    Parameters
    ----------
    terminal : Terminal
        Where to.
    counters : cenote.mr.PoolCounters
        Those of the pool.
    peak_bytes, held_bytes : int
        The most that was in use at once, and what the pool holds.
    """
    served, asked = counters.allocations, counters.upstream_allocations
    saved = max(0, served - asked)
    share = f" ({saved / served:.2%})" if served else ""
    rows = [
        ("allocations served by the pool", f"{served:,}"),
        ("allocations made by the driver", f"{asked:,}"),
        ("driver calls saved", f"{saved:,}{share}"),
        ("most bytes in use", format_bytes(peak_bytes)),
        ("held by the pool now", format_bytes(held_bytes)),
    ]
    terminal.table("What the pool did", ("", " "), rows)
