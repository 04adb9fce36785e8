"""The flight recorder: what was last allocated and freed on each device, and what failed.

It is always on. `snapshot` gives what it has of this process, `read` what a process has left in a file::

    recording = cenote.recorder.snapshot()
    recording.save("before-the-fall.rec")
    held = recording.held_by("tag")

The environment variable ``CENOTE_RECORDER`` is the size of a device's ring, 16 MiB if it is not set, which has room for
half a million events; ``off`` switches it off. ``CENOTE_RECORDER_FILE`` names a file that the ring lies in, such as
``/tmp/run.%p.rec`` with ``%p`` for the number of the process. Device 0 then has ``/tmp/run.4711.dev0.rec``, which is
whole whenever the process ends, also by ``kill -9``. It is only this user's to read. Where it cannot be had (another
process writes it, the disk is full), a report says so and the ring lies in memory.
"""

from __future__ import annotations

import os
import struct
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cenote._core import flight_recorder as _recorder
from cenote._core.arguments import whole_number
from cenote._core.registry import Holding
from cenote.logs._output_file import write_whole
from cenote.logs.trace import DTYPE as _TRACE_DTYPE
from cenote.logs.trace import Action, path_argument, trace_argument

if TYPE_CHECKING:
    from cenote.logs.trace import Trace

__all__ = [
    "DTYPE",
    "Event",
    "Recording",
    "RecordingError",
    "file_of",
    "from_trace",
    "is_recording_file",
    "read",
    "snapshot",
]

DTYPE = np.dtype(
    [
        ("time_ns", np.int64),
        ("thread", np.int64),
        ("event", np.uint8),
        ("address", np.uint64),
        ("bytes", np.uint64),
        ("stream", np.uint32),
        ("client", np.uint8),
        ("tag", np.uint16),
    ]
)
"""One event. ``time_ns`` counts nanoseconds since 1970, in steps of a few milliseconds; ``event`` is an `Event`;
``stream`` is the low half of the driver's number of it; ``client`` and ``tag`` are numbers of a recording's names."""


class Event(IntEnum):
    """What an event is."""

    ALLOCATE = 1
    FREE = 2
    FAILURE = 3
    GROWTH = 4
    TRIM = 5
    RELIEF = 6


DEFAULT_STREAM = 2**32 - 1
"""What ``stream`` is for the legacy default stream."""

_MAGIC = b"cenoteFR"
_VERSION = 1
_HEADER = struct.Struct("<8s10I6Q")
_CAPTURED = 2**31
_LARGEST_FILE = 2**36  # bytes; that of the core is at most so large

_HELD = np.dtype([("address", "<u8"), ("bytes", "<u8"), ("stream", "<u8"), ("client", "<u4"), ("tag", "<u4")])
_RECORD = np.dtype([("ns", "<u8"), ("address", "<u8"), ("bytes", "<u8"), ("who", "<u8")])
_SEGMENT_HEAD = 64
_TAG_BIT, _CLIENT_BIT, _EVENT_BIT, _USE_BIT = 32, 42, 47, 50


class RecordingError(ValueError):
    """A file is no recording, or is damaged. The text names the file and says what is wrong with it."""


@dataclass(frozen=True, repr=False)
class Recording:
    """What the recorder has of one device of one process.

    Attributes
    ----------
    device : int
        The device.
    process : int
        The number of the process.
    time_ns : int
        When it was copied, in nanoseconds since 1970; of a file that was left, the time of the last event.
    events : numpy.ndarray
        Of `DTYPE`, shape ``(events,)``, in their order. That of several threads is known to a few milliseconds; what is
        freed comes after its allocation.
    clients, tags : tuple of str
        The names of their numbers; tag 0 is no tag.
    is_wrapped : bool
        Whether earlier events have been overwritten.
    lost : int
        Events that were not written down, as more threads allocated than there was room for.
    held : numpy.ndarray or None
        What was held when it was copied, with ``address``, ``bytes``, ``stream``, ``client`` and ``tag``; None for a
        file that a process has left, where only the events tell.
    """

    device: int
    process: int
    time_ns: int
    events: npt.NDArray[np.void]
    clients: tuple[str, ...]
    tags: tuple[str, ...]
    is_wrapped: bool
    lost: int
    held: npt.NDArray[np.void] | None
    _content: bytes = field(compare=False)

    def __repr__(self) -> str:
        wrapped = ", earlier ones overwritten" if self.is_wrapped else ""
        return f"<Recording of device {self.device}, process {self.process}: {len(self.events):,} events{wrapped}>"

    @property
    def knows_the_beginning(self) -> bool:
        """Whether all that was held at the first event is known, so that the run can be replayed."""
        return self.held is not None or not (self.is_wrapped or self.lost)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it into a file, for `read`. What was there is replaced once all is written.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        write_whole(path_argument(path), self._content)

    def held_at_the_end(self) -> dict[int, tuple[int, int, int, int]]:
        """Give what is held at the end: from the address to (bytes, stream, client, tag)."""
        if self.held is not None:
            return {address: (nbytes, *whose) for address, nbytes, *whose in self.held.tolist()}
        held: dict[int, tuple[int, int, int, int]] = {}
        for event, address, nbytes, stream, client, tag in _columns(self.events):
            if event == Event.ALLOCATE:
                held[address] = (nbytes, stream, client, tag)
            elif event == Event.FREE:
                held.pop(address, None)
        return held

    def held_by(self, by: str) -> dict[str, Holding]:
        """Sum what is held at the end up.

        Parameters
        ----------
        by : str
            ``"client"``, ``"tag"`` or ``"stream"``.

        Returns
        -------
        dict
            `cenote.registry.Holding` by the name, the largest first; what has no tag is under ``""``.

        Raises
        ------
        ValueError
            If `by` is none of these.
        """
        column, names = self._names_of(by)
        sums: dict[str, list[int]] = {}
        for block in self.held_at_the_end().values():
            number = block[column]
            name = _stream_name(number) if names is None else _name(names, number)
            total = sums.setdefault(name, [0, 0])
            total[0] += block[0]
            total[1] += 1
        return {name: Holding(*total) for name, total in sorted(sums.items(), key=lambda item: -item[1][0])}

    def to_trace(self) -> Trace:
        """Make a trace of it, for `cenote.replay`: it begins with what was held at the first event.

        Returns
        -------
        cenote.logs.trace.Trace
            Array of `cenote.logs.trace.DTYPE`, shape ``(events,)``. Streams have numbers of their own; the default one
            is 0.
        """
        events = self.events[np.isin(self.events["event"], (Event.ALLOCATE, Event.FREE, Event.FAILURE))]
        before = self._held_before()
        trace = np.zeros(len(before) + len(events), dtype=_TRACE_DTYPE)
        start = int(events["time_ns"][0]) // 1000 if len(events) else 0
        for at, (address, (nbytes, stream, _, _)) in enumerate(before.items()):
            trace[at] = (0, start, Action.ALLOCATE, address, nbytes, _trace_stream(stream))
        rest = trace[len(before) :]
        rest["thread"] = events["thread"]
        rest["time_us"] = events["time_ns"] // 1000
        rest["action"] = np.choose(events["event"] - 1, [Action.ALLOCATE, Action.FREE, Action.FAILURE])
        rest["pointer"] = events["address"]
        rest["bytes"] = np.minimum(events["bytes"], np.iinfo(np.int64).max)
        streams = events["stream"].astype(np.uint64)
        rest["stream"] = np.where(streams == DEFAULT_STREAM, 0, streams + _FIRST_STREAM)
        if len(before) and len(events):
            trace["thread"][: len(before)] = events["thread"][0]
        return trace

    def bytes_over_time(self, by: str) -> dict[str, npt.NDArray[np.int64]]:
        """Follow what each client, tag or stream holds through the events.

        Parameters
        ----------
        by : str
            ``"client"``, ``"tag"`` or ``"stream"``.

        Returns
        -------
        dict
            By the name, the bytes held after each of `events`: int64, shape ``(events,)``. What has no tag is under
            ``""``.

        Raises
        ------
        ValueError
            If `by` is none of these.
        """
        column, names = self._names_of(by)
        sign = np.select([self.events["event"] == Event.ALLOCATE, self.events["event"] == Event.FREE], [1, -1], 0)
        change = sign * self.events["bytes"].astype(np.int64)
        numbers = self.events[by]
        base: dict[int, int] = {}
        for block in self._held_before().values():
            base[block[column]] = base.get(block[column], 0) + block[0]
        curves: dict[str, npt.NDArray[np.int64]] = {}
        for number in sorted({*np.unique(numbers).tolist(), *base}):
            held = base.get(number, 0) + np.cumsum(np.where(numbers == number, change, 0), dtype=np.int64)
            name = _stream_name(number) if names is None else _name(names, number)
            curves[name] = curves.get(name, 0) + held
        return curves

    def _names_of(self, by: str) -> tuple[int, tuple[str, ...] | None]:
        """Give the place of a property in a block, and the names of its numbers."""
        columns = {"client": (2, self.clients), "tag": (3, self.tags), "stream": (1, None)}
        if by not in columns:
            raise ValueError(f"by must be one of {', '.join(map(repr, columns))}, not {by!r}")
        return columns[by]

    def _held_before(self) -> dict[int, tuple[int, int, int, int]]:
        """Give what was held at the first event, as `held_at_the_end` does."""
        before = {}
        known: set[int] = set()
        for event, address, nbytes, stream, client, tag in _columns(self.events):
            if event == Event.FREE and address not in known:
                before[address] = (nbytes, stream, client, tag)
            if event in (Event.ALLOCATE, Event.FREE):
                known.add(address)
        if self.held is not None:
            for address, nbytes, stream, client, tag in self.held.tolist():
                if address not in known:
                    before[address] = (nbytes, stream & DEFAULT_STREAM, client, tag)
        return before


_FIRST_STREAM = 16
"""Handles below are default streams in a trace, and the numbers of real streams are small."""


def snapshot(device: int = 0) -> Recording:
    """Copy what the recorder has of a device of this process. The program may go on allocating meanwhile.

    Parameters
    ----------
    device : int, default 0
        The device.

    Returns
    -------
    Recording
        Without events where nothing was recorded, or the recorder is off.

    Raises
    ------
    TypeError
        If `device` is no int.
    ValueError
        If it is none that there can be.
    """
    number = device_argument(device)
    content = _recorder.copy_region(number)
    blocks = _recorder.held_blocks(number)
    held = np.array([block[:5] for block in blocks], dtype=_HELD)
    if not content:
        content = _empty_content(number)
    head = list(_HEADER.unpack_from(content))
    head[_HELD_COUNT] = len(held) + 1
    content = _HEADER.pack(*head) + content[_HEADER.size :] + held.tobytes()
    return _parse(content, "the recorder")


def read(path: str | os.PathLike[str]) -> Recording:
    """Read a recording from a file: what `Recording.save` wrote, or a process has left under ``CENOTE_RECORDER_FILE``.

    Raises
    ------
    TypeError
        If `path` is no path.
    RecordingError
        If the file cannot be read, is none, or is damaged.
    """
    file = path_argument(path)
    try:
        size = file.stat().st_size
        if size > _LARGEST_FILE:
            raise RecordingError(f"{file}: {size:,} bytes are more than any recording has")
        with file.open("rb") as opened:
            if opened.read(len(_MAGIC)) != _MAGIC:
                raise RecordingError(f"{file}: this is no recording of cenote's flight recorder")
            opened.seek(0)
            content = opened.read()
    except OSError as error:
        raise RecordingError(f"{file}: {error.strerror}") from error
    return _parse(content, str(file))


def from_trace(trace: Trace, device: int = 0) -> Recording:
    """Make a recording of a trace, whose client is ``"log"``, for what takes recordings.

    Parameters
    ----------
    trace : cenote.logs.trace.Trace
        What `cenote.trace.read` returned, shape ``(events,)``.
    device : int, default 0
        The device that it is of.

    Returns
    -------
    Recording

    Raises
    ------
    TypeError
        If `trace` is none, or `device` no int.
    ValueError
        If `device` is none that there can be.
    """
    recorded = trace_argument(trace)
    number = device_argument(device)
    events = np.zeros(len(recorded), dtype=DTYPE)
    events["time_ns"] = recorded["time_us"] * 1000
    events["thread"] = recorded["thread"]
    events["event"] = np.choose(recorded["action"], [Event.ALLOCATE, Event.FREE, Event.FAILURE])
    events["address"] = recorded["pointer"]
    events["bytes"] = recorded["bytes"]
    events["stream"] = np.where(recorded["stream"] == 0, DEFAULT_STREAM, recorded["stream"] & np.uint64(_CAPTURED - 1))
    time_ns = int(events["time_ns"].max(initial=0))
    return Recording(number, 0, time_ns, events, ("log",), (), False, 0, None, _content_of(number, events, time_ns))


def _content_of(device: int, events: npt.NDArray[np.void], time_ns: int) -> bytes:
    """Write events of one client into segments, as the core does."""
    names_at, room = _HEADER.size, 510
    names = b"log".ljust(64, b"\0")
    start = names_at + len(names)
    content = [names]
    for turn, thread_events in enumerate(np.array_split(events, max(1, -(-len(events) // room))), 1):
        # One thread in a recording of a trace: the order of the trace is the order of the events.
        records = np.zeros(room, dtype=_RECORD)
        of = records[: len(thread_events)]
        of["ns"], of["address"], of["bytes"] = (thread_events[name] for name in ("time_ns", "address", "bytes"))
        of["who"] = (
            np.uint64(1 << _USE_BIT)
            | thread_events["event"].astype(np.uint64) << np.uint64(_EVENT_BIT)
            | thread_events["stream"].astype(np.uint64)
        )
        head = struct.pack("<3Q", turn, 1, 1 << _USE_BIT).ljust(_SEGMENT_HEAD, b"\0")
        content.append(head + records.tobytes())
    segment_bytes = _SEGMENT_HEAD + room * _RECORD.itemsize
    sizes = (segment_bytes, len(content) - 1, names_at, start, 1, 0, 64)
    header = _HEADER.pack(_MAGIC, _VERSION, device, *sizes, 0, 0, 0, time_ns, 0, 0, 0)
    return header + b"".join(content)


def is_recording_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a recording does; False if it cannot be read."""
    try:
        with path_argument(path).open("rb") as opened:
            return opened.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def file_of(device: int = 0) -> Path | None:
    """Give the file in which this process records a device; None where that is in memory.

    Raises
    ------
    TypeError, ValueError
        As `snapshot`.
    """
    name = _recorder.file_of(device_argument(device))
    return Path(name) if name else None


(_DEVICE, _SEGMENT_BYTES, _SEGMENTS, _NAMES_AT, _SEGMENTS_AT, _CLIENTS, _TAGS, _NAME_BYTES, _PROCESS) = range(2, 11)
(_MADE_NS, _MADE_SINCE_1970, _COPIED_NS, _HELD_COUNT, _LOST) = range(11, 16)


def device_argument(device: int) -> int:
    """Give the number that an argument is; TypeError for what is none, ValueError for one that no device can have."""
    number = whole_number("device", device, "the number of a device as int")
    if not 0 <= number < 64:
        raise ValueError(f"device must be the number of a device, not {number}")
    return number


def _empty_content(device: int) -> bytes:
    now = time.monotonic_ns()
    sizes = (16384, 0, _HEADER.size, _HEADER.size, 0, 0, 64)  # of no segment and no name
    return _HEADER.pack(_MAGIC, _VERSION, device, *sizes, os.getpid(), now, time.time_ns(), now, 0, 0, 0)


def _parse(content: bytes, source: str) -> Recording:
    """Take a region apart; every number in it may be wrong."""
    if len(content) < _HEADER.size:
        raise RecordingError(f"{source}: the file is cut short, at {len(content)} bytes")
    head = _HEADER.unpack_from(content)
    if head[0] != _MAGIC:
        raise RecordingError(f"{source}: this is no recording of cenote's flight recorder")
    if head[1] != _VERSION:
        raise RecordingError(f"{source}: a recording of version {head[1]}, and this cenote reads version {_VERSION}")
    segment_bytes, segments, start = head[_SEGMENT_BYTES], head[_SEGMENTS], head[_SEGMENTS_AT]
    names_end = head[_NAMES_AT] + (head[_CLIENTS] + head[_TAGS]) * head[_NAME_BYTES]
    end = start + segments * segment_bytes
    held_count = max(0, head[_HELD_COUNT] - 1)
    if segment_bytes <= _SEGMENT_HEAD or segment_bytes % _RECORD.itemsize or names_end > start or head[_DEVICE] >= 64:
        raise RecordingError(f"{source}: the file is damaged: its header contradicts itself")
    if len(content) < end + held_count * _HELD.itemsize:
        raise RecordingError(
            f"{source}: the file is cut short: {len(content):,} bytes of {end + held_count * _HELD.itemsize:,}"
        )
    names = list(_names(content, head[_NAMES_AT], head[_CLIENTS] + head[_TAGS], head[_NAME_BYTES]))
    since_1970 = head[_MADE_SINCE_1970] - head[_MADE_NS]
    pieces = list(_pieces(content, start, segments, segment_bytes))
    events = _in_order(pieces, since_1970)
    time_ns = head[_COPIED_NS] + since_1970 if head[_COPIED_NS] else int(events["time_ns"].max(initial=0))
    held = None
    if head[_HELD_COUNT]:
        held = np.frombuffer(content, dtype=_HELD, count=held_count, offset=end)
    return Recording(
        device=head[_DEVICE],
        process=head[_PROCESS],
        time_ns=int(np.clip(time_ns, 0, 2**63 - 1)),
        events=events,
        clients=_trimmed(names[: head[_CLIENTS]]),
        tags=_trimmed(names[head[_CLIENTS] :]),
        is_wrapped=any(piece.use > 1 for piece in pieces),
        lost=head[_LOST],
        held=held,
        _content=content[: end + held_count * _HELD.itemsize],
    )


@dataclass(frozen=True)
class _Piece:
    """The events of one segment."""

    turn: int
    thread: int
    use: int
    records: npt.NDArray[np.void]


def _pieces(content: bytes, start: int, segments: int, segment_bytes: int) -> Iterator[_Piece]:
    for at in range(start, start + segments * segment_bytes, segment_bytes):
        turn, thread, use = struct.unpack_from("<3Q", content, at)
        if turn == 0:
            continue
        count = (segment_bytes - _SEGMENT_HEAD) // _RECORD.itemsize
        records = np.frombuffer(content, dtype=_RECORD, count=count, offset=at + _SEGMENT_HEAD)
        marks = records["who"] >> np.uint64(_EVENT_BIT)
        is_present = (marks >> np.uint64(_USE_BIT - _EVENT_BIT) == use >> _USE_BIT) & (marks & np.uint64(7) != 0)
        whole = count if is_present.all() else int(is_present.argmin())
        yield _Piece(turn, thread & (2**63 - 1), use >> _USE_BIT, records[:whole])


def _in_order(pieces: list[_Piece], since_1970: int) -> npt.NDArray[np.void]:
    """Put the events of all threads into one order."""
    of_thread: dict[int, list[npt.NDArray[np.void]]] = {}
    for piece in sorted((piece for piece in pieces if len(piece.records)), key=lambda piece: piece.turn):
        of_thread.setdefault(piece.thread, []).append(_events(piece, since_1970))
    threads = [np.concatenate(parts) for parts in of_thread.values()]
    if not threads:
        return np.zeros(0, dtype=DTYPE)
    if len(threads) == 1:
        return threads[0]
    together = np.concatenate(threads)
    return together[_merged([_columns(each) for each in threads], [each["time_ns"].tolist() for each in threads])]


def _events(piece: _Piece, since_1970: int) -> npt.NDArray[np.void]:
    events = np.zeros(len(piece.records), dtype=DTYPE)
    who = piece.records["who"]
    events["time_ns"] = piece.records["ns"].astype(np.int64) + np.int64(np.clip(since_1970, -(2**62), 2**62))
    events["thread"] = piece.thread
    events["event"] = who >> np.uint64(_EVENT_BIT) & np.uint64(7)
    events["address"] = piece.records["address"]
    events["bytes"] = piece.records["bytes"]
    events["stream"] = who & np.uint64(2**32 - 1)
    events["client"] = who >> np.uint64(_CLIENT_BIT) & np.uint64(31)
    events["tag"] = who >> np.uint64(_TAG_BIT) & np.uint64(1023)
    return events


def _merged(threads: list[list[tuple[int, ...]]], times: list[list[int]]) -> npt.NDArray[np.intp]:
    """Give the indices of the merged order: by time, and where that is the same so that each event is possible.

    It takes the first that is possible, and does not look ahead: where several threads allocate one address within a
    tick of the clock, it may find none in the end that is.
    """
    begins = np.cumsum([0, *map(len, threads)])[:-1].tolist()
    waiting = deque(range(len(threads)))
    at = [0] * len(threads)
    live: dict[int, int] = {}  # from the address to the bytes
    order = []
    while waiting:
        now = min(times[each][at[each]] for each in waiting)
        heads = [each for each in waiting if times[each][at[each]] == now]
        possible = [each for each in heads if _is_possible(threads[each][at[each]], live)] or heads
        chosen = next((each for each in possible if threads[each][at[each]][0] == Event.FREE), possible[0])
        event, address, nbytes = threads[chosen][at[chosen]][:3]
        if event == Event.ALLOCATE:
            live[address] = nbytes
        elif event == Event.FREE:
            live.pop(address, None)
        order.append(begins[chosen] + at[chosen])
        at[chosen] += 1
        if at[chosen] == len(threads[chosen]):
            waiting.remove(chosen)
    return np.array(order, dtype=np.intp)


def _is_possible(event: tuple[int, ...], live: dict[int, int]) -> bool:
    kind, address, nbytes = event[:3]
    if kind == Event.ALLOCATE:
        return address not in live
    return kind != Event.FREE or live.get(address) == nbytes


def _columns(events: npt.NDArray[np.void]) -> list[tuple[int, ...]]:
    """Give (event, address, bytes, stream, client, tag) of each event, as ints."""
    names = ("event", "address", "bytes", "stream", "client", "tag")
    return list(zip(*(events[name].tolist() for name in names), strict=True))


def _names(content: bytes, start: int, count: int, name_bytes: int) -> Iterator[str]:
    for at in range(start, start + count * name_bytes, name_bytes or 1):
        yield content[at : at + name_bytes].split(b"\0", 1)[0].decode("utf-8", "replace")


def _trimmed(names: list[str]) -> tuple[str, ...]:
    while names and not names[-1]:
        names.pop()
    return tuple(names)


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if number < len(names) else "" if number == 0 else f"number {number}"


def _stream_name(stream: int) -> str:
    stream &= DEFAULT_STREAM
    if stream == DEFAULT_STREAM:
        return "default stream"
    return f"captured stream {stream - _CAPTURED}" if stream >= _CAPTURED else f"stream {stream}"


def _trace_stream(stream: int) -> int:
    return 0 if stream == DEFAULT_STREAM else stream + _FIRST_STREAM
