"""Bytes as people read them."""

from __future__ import annotations

from typing import SupportsIndex

from cenote._core.arguments import parse_bytes as _parse_text
from cenote._core.arguments import whole_number

__all__ = ["format_bytes", "parse_bytes"]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def format_bytes(nbytes: int | None) -> str:
    """Write a number of bytes in the largest binary unit that fits, as ``"1.50 GiB"``; ``"unknown"`` for None.

    TypeError for what is neither.
    """
    if nbytes is None:
        return "unknown"
    nbytes = whole_number("nbytes", nbytes, "a number of bytes as int, or None")
    power = min((max(nbytes, 1).bit_length() - 1) // 10, len(_UNITS) - 1)
    return f"{nbytes / 1024**power:.2f} {_UNITS[power]}" if power else f"{nbytes} B"


def parse_bytes(size: SupportsIndex | str) -> int:
    """Read a number of bytes.

    Parameters
    ----------
    size : int or str
        An int is returned as it is. A text is a number and, unless it means bytes, a unit in upper or lower case:
        ``B``, ``KB`` to ``PB`` (powers of 1000), ``KiB`` to ``PiB`` (powers of 1024). ``"1.5 GiB"`` is 1610612736.

    Returns
    -------
    int
        Whole bytes, rounded down.

    Raises
    ------
    ValueError
        The text is no size, or one of 2^64 bytes or more.
    TypeError
        It is neither an int nor a str.
    """
    if isinstance(size, str):
        return _parse_text(size)
    if isinstance(size, bool):
        return int(size)
    return whole_number("size", size, "a number of bytes as int, or a text such as '1GiB'")
