"""The bytes of a recording, as the core lays them out (``ground/flight_recorder.hpp``): read, and written anew."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
"""One event. ``time_ns`` counts nanoseconds since 1970 in steps of a few milliseconds, and events in between; ``event``
is an `Event`; ``stream`` is the low half of the driver's number of it; ``client`` and ``tag`` are numbers of a
recording's names."""

MAGIC = b"cenoteFR"
_VERSION = 1
_HEADER = struct.Struct("<8s10I6Q")
LARGEST_FILE = 2**36  # bytes; that of the core is at most so large

HELD = np.dtype([("address", "<u8"), ("bytes", "<u8"), ("stream", "<u8"), ("client", "<u4"), ("tag", "<u4")])
_RECORD = np.dtype([("ns", "<u8"), ("address", "<u8"), ("bytes", "<u8"), ("who", "<u8")])
_SEGMENT_HEAD = 64
_TAG_BIT, _CLIENT_BIT, _EVENT_BIT, _USE_BIT = 32, 42, 47, 50

(_DEVICE, _SEGMENT_BYTES, _SEGMENTS, _NAMES_AT, _SEGMENTS_AT, _CLIENTS, _TAGS, _NAME_BYTES, _PROCESS) = range(2, 11)
(_MADE_NS, _MADE_SINCE_1970, _COPIED_NS, _COUNT_OF_HELD, _LOST) = range(11, 16)


@dataclass(frozen=True)
class Region:
    """What lies in a region: as the attributes of a `cenote.recorder.Recording`, and the bytes themselves."""

    device: int
    process: int
    time_ns: int
    events: npt.NDArray[np.void]
    clients: tuple[str, ...]
    tags: tuple[str, ...]
    is_wrapped: bool
    lost: int
    held: npt.NDArray[np.void] | None
    content: bytes


def parse(content: bytes) -> Region:
    """Take a region apart; every number in it may be wrong. ValueError says what is."""
    if len(content) < _HEADER.size:
        raise ValueError(f"the file is cut short, at {len(content)} bytes")
    head = _HEADER.unpack_from(content)
    if head[0] != MAGIC:
        raise ValueError("this is no recording of cenote's flight recorder")
    if head[1] != _VERSION:
        raise ValueError(f"a recording of version {head[1]}, and this cenote reads version {_VERSION}")
    segment_bytes, segments, start = head[_SEGMENT_BYTES], head[_SEGMENTS], head[_SEGMENTS_AT]
    names_end = head[_NAMES_AT] + (head[_CLIENTS] + head[_TAGS]) * head[_NAME_BYTES]
    end = start + segments * segment_bytes
    held_count = max(0, head[_COUNT_OF_HELD] - 1)
    if segment_bytes <= _SEGMENT_HEAD or segment_bytes % _RECORD.itemsize or names_end > start or head[_DEVICE] >= 64:
        raise ValueError("the file is damaged: its header contradicts itself")
    if len(content) < end + held_count * HELD.itemsize:
        raise ValueError(f"the file is cut short: {len(content):,} bytes of {end + held_count * HELD.itemsize:,}")
    names = list(_names(content, head[_NAMES_AT], head[_CLIENTS] + head[_TAGS], head[_NAME_BYTES]))
    since_1970 = head[_MADE_SINCE_1970] - head[_MADE_NS]
    pieces = list(_pieces(content, start, segments, segment_bytes))
    events = _in_order(pieces, since_1970)
    time_ns = head[_COPIED_NS] + since_1970 if head[_COPIED_NS] else int(events["time_ns"].max(initial=0))
    held = None
    if head[_COUNT_OF_HELD]:
        held = np.frombuffer(content, dtype=HELD, count=held_count, offset=end)
    return Region(
        device=head[_DEVICE],
        process=head[_PROCESS],
        time_ns=int(np.clip(time_ns, 0, 2**63 - 1)),
        events=events,
        clients=_trimmed(names[: head[_CLIENTS]]),
        tags=_trimmed(names[head[_CLIENTS] :]),
        is_wrapped=any(piece.use > 1 for piece in pieces),
        lost=head[_LOST],
        held=held,
        content=content[: end + held_count * HELD.itemsize],
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
    """Put the events of all threads into the order of their times, which is that of the events of each address."""
    of_thread: dict[int, list[npt.NDArray[np.void]]] = {}
    for piece in sorted((piece for piece in pieces if len(piece.records)), key=lambda piece: piece.turn):
        of_thread.setdefault(piece.thread, []).append(_events(piece, since_1970))
    threads = [np.concatenate(parts) for parts in of_thread.values()]
    if not threads:
        return np.zeros(0, dtype=DTYPE)
    together = np.concatenate(threads)
    return together if len(threads) == 1 else together[np.argsort(together["time_ns"], kind="stable")]


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


def _names(content: bytes, start: int, count: int, name_bytes: int) -> Iterator[str]:
    for at in range(start, start + count * name_bytes, name_bytes or 1):
        yield content[at : at + name_bytes].split(b"\0", 1)[0].decode("utf-8", "replace")


def _trimmed(names: list[str]) -> tuple[str, ...]:
    while names and not names[-1]:
        names.pop()
    return tuple(names)


def content_of(device: int, events: npt.NDArray[np.void], time_ns: int) -> bytes:
    """Write the events of a log, whose client is ``"log"``, into segments, as the core does."""
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
    header = _HEADER.pack(MAGIC, _VERSION, device, *sizes, 0, 0, 0, time_ns, 0, 0, 0)
    return header + b"".join(content)


def with_held(content: bytes, held: npt.NDArray[np.void]) -> bytes:
    """Append what was held, of the dtype `HELD`, when a region was copied."""
    head = list(_HEADER.unpack_from(content))
    head[_COUNT_OF_HELD] = len(held) + 1
    return _HEADER.pack(*head) + content[_HEADER.size :] + held.tobytes()


def empty_content(device: int) -> bytes:
    """Make a region without events."""
    now = time.monotonic_ns()
    sizes = (16384, 0, _HEADER.size, _HEADER.size, 0, 0, 64)  # of no segment and no name
    return _HEADER.pack(MAGIC, _VERSION, device, *sizes, os.getpid(), now, time.time_ns(), now, 0, 0, 0)
