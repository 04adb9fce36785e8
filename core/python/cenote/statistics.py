"""Counts of what passes through a `cenote.mr.StatisticsResourceAdaptor`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Statistics"]


@dataclass(frozen=True)
class Statistics:
    """Bytes and allocations, as requested; negative where more was freed than allocated since the count began."""

    current_bytes: int
    current_count: int
    peak_bytes: int
    peak_count: int
    total_bytes: int
    total_count: int
