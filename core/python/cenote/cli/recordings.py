"""What the commands read: a recording, or a log of allocations that is made one."""

from __future__ import annotations

from pathlib import Path

from cenote import recorder
from cenote.logs.trace import read
from cenote.recorder import Recording


def read_recording(path: Path) -> Recording:
    """Read a recording, or a log as the logging adaptors of cenote and RMM write it.

    Raises
    ------
    ValueError
        If the file is neither, or damaged; the text names it.
    """
    return recorder.read(path) if recorder.is_recording_file(path) else recorder.from_trace(read(path))
