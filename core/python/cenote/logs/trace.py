"""Recorded allocations: the CSV files that the logging adaptors of cenote and RMM write.

::

    Thread,Time,Action,Pointer,Size,Stream
    4711,12:05:59.123456,allocate,0x7f5c00000000,1024,0x1
    4711,12:05:59.123999,free,0x7f5c00000000,1024,0x1

A time is ``HH:MM:SS.micros`` or ``HH:MM:SS:micros``, either of the wall clock or since the start of the recording.
Actions are ``allocate``, ``free`` and ``allocate failure``, whose pointer is ``(nil)``. Streams are decimal or
hexadecimal. A file that was compressed with gzip is decompressed, whatever its name.

A snapshot of PyTorch's memory history (``torch.cuda.memory._dump_snapshot``) is read as well, by an unpickler that can
make nothing but plain data.

The log of a process that was killed ends where its last write did, mostly in the midst of a line. All that is whole is
read, and a `TraceWarning` says what is not.
"""

from __future__ import annotations

import gzip
import os
import re
import warnings
import zlib
from collections.abc import Iterator
from datetime import timedelta
from enum import IntEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cenote.logs._torch_snapshot import is_pickle, rows_of_snapshot

__all__ = ["DTYPE", "Action", "Trace", "TraceError", "TraceWarning", "bytes_in_use", "example", "read"]

HEADER = "Thread,Time,Action,Pointer,Size,Stream"

DTYPE = np.dtype(
    [
        ("thread", np.int64),
        ("time_us", np.int64),
        ("action", np.int8),
        ("pointer", np.uint64),
        ("bytes", np.int64),
        ("stream", np.uint64),
    ]
)
"""One event. ``time_us`` counts microseconds and never runs backwards over midnight; ``action`` is an `Action`."""

Trace = npt.NDArray[np.void]
"""Events in the order of the file: an array of `DTYPE`, shape ``(events,)``."""

_LARGEST_SNAPSHOT = 4 << 30  # bytes

_LONGEST_LINE = 1024
"""Bytes; the logging adaptors write less than 200."""

_GZIP = b"\x1f\x8b"
_UTF_8_MARK = b"\xef\xbb\xbf"
_UTF_16_BEGINNINGS = (b"\xff\xfe", b"\xfe\xff", b"T\0", b"\0T")
_UTF_32_BEGINNINGS = (b"\xff\xfe\0\0", b"\0\0\xfe\xff", b"T\0\0\0", b"\0\0\0T")
_OTHER_ARCHIVES = {b"PK": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd"}

_DAY_US = 24 * 3600 * 1_000_000
_INTEGER = re.compile(r"0x[0-9a-fA-F]+|[0-9]+")
_TIME = re.compile(r"(\d{1,4}):([0-5]\d):([0-5]\d)[.:](\d{6})")


class Action(IntEnum):
    """What an event is."""

    ALLOCATE = 0
    FREE = 1
    FAILURE = 2


_ACTIONS = {"allocate": Action.ALLOCATE, "free": Action.FREE, "allocate failure": Action.FAILURE}


class TraceError(ValueError):
    """A file is no trace, or is damaged. The text names the file, the line and what is wrong there."""


class TraceWarning(UserWarning):
    """The end of a trace is missing, and was left out. The text names the file, the line and what is missing."""


def read(path: str | os.PathLike[str]) -> Trace:
    """Read a trace.

    Parameters
    ----------
    path : path-like
        A CSV file or a snapshot of PyTorch's, or one of them compressed with gzip.

    Returns
    -------
    Trace
        Array of `DTYPE`, shape ``(events,)``.

    Raises
    ------
    TypeError
        If `path` is no path.
    TraceError
        If the file cannot be read, has no whole line, or has a malformed one that is not its last.

    Warns
    -----
    TraceWarning
        If the last line, or the end of the compressed data, is cut off. All that is whole is returned.
    """
    file = path_argument(path)
    number = 0
    rows = []
    try:
        if (snapshot := _snapshot_in(file)) is not None:
            return _made_of(rows_of_snapshot(snapshot))
        for number, line in enumerate(_lines(file), start=1):
            if len(line) == _LONGEST_LINE:
                raise ValueError(f"a line of {_LONGEST_LINE} bytes or more, which no trace has: {_excerpt(line)}")
            if number == 1:
                _require_header(line)
                continue
            try:
                rows.append(_parse(_text_of(line)))
            except ValueError:
                if line.endswith(b"\n"):
                    raise
                _warn_of_end(f"{file}, line {number}: left out, as it is cut short: {_excerpt(line)}")
    except EOFError as error:
        if number == 0:
            raise TraceError(f"{file}, line 1: damaged gzip data ({error})") from error
        _warn_of_end(f"{file}: the compressed data is cut short; {number:,} lines of it are whole")
    except OSError as error:
        if error.strerror:
            raise TraceError(f"{file}: {error.strerror}") from error
        raise TraceError(f"{file}, line {number + 1}: damaged gzip data ({error})") from error
    except zlib.error as error:
        raise TraceError(f"{file}, line {number + 1}: damaged gzip data ({error})") from error
    except ValueError as error:
        raise TraceError(f"{file}, line {max(number, 1)}: {error}") from error
    if number == 0:
        raise TraceError(f"{file}, line 1: the file is empty; expected the header '{HEADER}'")
    return _made_of(rows)


def _made_of(rows: list[tuple[int, int, int, int, int, int]]) -> Trace:
    trace = np.array(rows, dtype=DTYPE)
    trace["time_us"] += _DAY_US * _midnights(trace["time_us"])
    return trace


def example() -> Path:
    """Return the path of the trace that comes with cenote; its README.md says what was recorded.

    Returns
    -------
    pathlib.Path
        A file for `read`.
    """
    return Path(__file__).with_name("data") / "gnn.csv.gz"


def bytes_in_use(trace: Trace) -> npt.NDArray[np.int64]:
    """Compute how many bytes are in use after each event.

    Parameters
    ----------
    trace : Trace
        Shape ``(events,)``.

    Returns
    -------
    numpy.ndarray
        Bytes, int64, shape ``(events,)``. If the recording frees what it did not see allocated, the curve is lifted so
        that it never falls below zero.
    """
    trace_argument(trace)
    sign = np.select([trace["action"] == Action.ALLOCATE, trace["action"] == Action.FREE], [1, -1], 0)
    in_use = np.cumsum(sign * trace["bytes"], dtype=np.int64)
    return in_use - min(0, int(in_use.min(initial=0)))


def path_argument(path: str | os.PathLike[str]) -> Path:
    """Give the path that an argument is; TypeError for what is none, ValueError for one that no file can have."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a str or os.PathLike, not {type(path).__name__}")
    name = os.fspath(path)
    if not isinstance(name, str):
        raise TypeError(f"path must be text, not {type(name).__name__}")
    if not name or "\0" in name:
        raise ValueError(f"path cannot be {'empty' if not name else 'a text with a null character'}")
    return Path(name)


def trace_argument(trace: Trace) -> Trace:
    """Give the trace that an argument is; TypeError for what is none."""
    if not isinstance(trace, np.ndarray) or trace.dtype != DTYPE or trace.ndim != 1:
        raise TypeError(f"trace must be a row of events, as cenote.trace.read returns it, not {type(trace).__name__}")
    return trace


def _snapshot_in(file: Path) -> bytes | None:
    """Give the pickle that a file is, decompressed; None for any other file."""
    with file.open("rb") as raw:
        is_compressed = raw.peek(2).startswith(_GZIP)
        content = gzip.GzipFile(fileobj=raw) if is_compressed else raw
        try:
            if not is_pickle(content.peek(2)[:2]):
                return None
        except (EOFError, OSError, zlib.error):
            return None  # whoever reads its lines says where it is damaged
        found = content.read(_LARGEST_SNAPSHOT + 1)
    if len(found) > _LARGEST_SNAPSHOT:
        raise ValueError(f"a snapshot of more than {_LARGEST_SNAPSHOT >> 30} GiB")
    return found


def _lines(file: Path) -> Iterator[bytes]:
    with file.open("rb") as raw:
        lines = gzip.GzipFile(fileobj=raw) if raw.peek(2).startswith(_GZIP) else raw
        while line := lines.readline(_LONGEST_LINE):
            yield line


def _warn_of_end(text: str) -> None:
    warnings.warn(text, TraceWarning, stacklevel=3)


def _require_header(line: bytes) -> None:
    """Say what a file is that does not begin as a trace does."""
    for mark, archive in _OTHER_ARCHIVES.items():
        if line.startswith(mark):
            raise ValueError(f"the file is compressed with {archive}: decompress it first, or use gzip")
    for beginnings, encoding in ((_UTF_32_BEGINNINGS, "UTF-32"), (_UTF_16_BEGINNINGS, "UTF-16")):
        if line.startswith(beginnings):
            raise ValueError(f"the file is text in {encoding}: convert it first, as with iconv -f {encoding} -t UTF-8")
    text = _text_of(line.removeprefix(_UTF_8_MARK))
    if text.rstrip() != HEADER:
        raise ValueError(f"expected the header '{HEADER}', found {_excerpt(line)}")


def _text_of(line: bytes) -> str:
    if not line.isascii():
        raise ValueError(f"not the text of a trace: {_excerpt(line)}")
    return line.decode("ascii")


def _parse(line: str) -> tuple[int, int, int, int, int, int]:
    fields = line.rstrip().split(",")
    if len(fields) != 6:
        raise ValueError(f"expected 6 fields, found {len(fields)}: {_excerpt(line.encode())}")
    thread, time, action, pointer, size, stream = fields
    if action not in _ACTIONS:
        raise ValueError(f"'{action}' is not an action; known are: {', '.join(_ACTIONS)}")
    if not size.isdecimal() or int(size) > np.iinfo(np.int64).max:
        raise ValueError(f"'{size}' is not a size in bytes")
    return (
        _integer(thread, "thread"),
        _microseconds(time),
        _ACTIONS[action],
        _integer(pointer, "pointer"),
        int(size),
        _integer(stream, "stream"),
    )


def _integer(text: str, what: str) -> int:
    if text == "(nil)":
        return 0
    bits = 63 if what == "thread" else 64
    if _INTEGER.fullmatch(text) is None or (value := int(text, 16 if text.startswith("0x") else 10)) >= 2**bits:
        raise ValueError(f"'{text}' is not a {what}")
    return value


def _microseconds(text: str) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' is not a time; expected HH:MM:SS.micros")
    hours, minutes, seconds, micros = map(int, match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=micros) // timedelta(microseconds=1)


def _midnights(time_us: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count the midnights that a wall clock has passed before each event. A small step back is no midnight."""
    passed = np.diff(time_us, prepend=time_us[:1]) < -_DAY_US // 2
    return np.cumsum(passed, dtype=np.int64)


def _excerpt(line: bytes) -> str:
    text = line.decode("utf-8", "backslashreplace").rstrip()
    return repr(text if len(text) <= 60 else text[:57] + "...")
