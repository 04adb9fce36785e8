"""Bytes as people read them."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def format_bytes(nbytes: int | None) -> str:
    """Write a number of bytes in the largest binary unit that fits, as ``"1.50 GiB"``; ``"unknown"`` for None."""
    if nbytes is None:
        return "unknown"
    power = min((max(nbytes, 1).bit_length() - 1) // 10, len(_UNITS) - 1)
    return f"{nbytes / 1024**power:.2f} {_UNITS[power]}" if power else f"{nbytes} B"
