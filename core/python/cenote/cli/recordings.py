"""What the commands read: a recording, or a log of allocations that is made one."""

from __future__ import annotations

from pathlib import Path

from cenote import recorder
from cenote.logs.trace import Trace, read
from cenote.recorder import Recording


def read_recording(path: Path) -> Recording:
    """Read a recording, or a log as the logging adaptors of cenote and RMM write it.

    Raises
    ------
    ValueError
        If the file is neither, or damaged; the text names it.
    """
    return recorder.read(path) if recorder.is_recording_file(path) else recorder.from_trace(read(path))


def read_trace(path: Path) -> Trace:
    """Read a log, a snapshot of PyTorch's, or the events of a recording.

    Raises
    ------
    ValueError
        If the file is none of these, or damaged; the text names it.
    """
    return recorder.read(path).to_trace() if recorder.is_recording_file(path) else read(path)
