"""The numbers that a recording has for streams, and what they are called."""

from __future__ import annotations

DEFAULT_STREAM = 2**32 - 1
"""What ``stream`` is for the legacy default stream."""

FIRST_CAPTURED = 2**31
"""What ``stream`` is for the first stream of a capture."""

FIRST_STREAM = 16
"""Handles below are default streams in a trace, and the numbers of real streams are small."""


def stream_name(stream: int) -> str:
    """Give the name of a stream."""
    stream &= DEFAULT_STREAM
    if stream == DEFAULT_STREAM:
        return "default stream"
    return f"captured stream {stream - FIRST_CAPTURED}" if stream >= FIRST_CAPTURED else f"stream {stream}"


def trace_stream(stream: int) -> int:
    """Give the number that a stream has in a trace."""
    return 0 if stream == DEFAULT_STREAM else stream + FIRST_STREAM
