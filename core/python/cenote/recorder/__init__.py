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
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cenote._core import flight_recorder as _recorder
from cenote._core.arguments import whole_number
from cenote._core.clients import Holding
from cenote.logs._output_file import write_whole
from cenote.logs.trace import DTYPE as _TRACE_DTYPE
from cenote.logs.trace import Action, path_argument, trace_argument
from cenote.recorder._region import (
    DTYPE,
    HELD,
    LARGEST_FILE,
    MAGIC,
    Region,
    content_of,
    empty_content,
    parse,
    with_held,
)
from cenote.recorder._streams import DEFAULT_STREAM, FIRST_CAPTURED, FIRST_STREAM, stream_name, trace_stream

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


class Event(IntEnum):
    """What an event is.

    A hold is memory that others than the program keep from the pool: a pin of the block at its address, of 1 byte when
    it is put and of none when it is taken back; or, of no address, the end of the graph that had its stream's memory,
    or, with bytes, a later capture that goes on with that: they are its stream, as events have it.
    """

    ALLOCATE = 1
    FREE = 2
    FAILURE = 3
    GROWTH = 4
    TRIM = 5
    RELIEF = 6
    HOLD = 7


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
        Of `DTYPE`, shape ``(events,)``, in their order. That of a thread is exact, and so is that of an address,
        whatever threads hand it on; other events of several threads may change places with their neighbours.
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
            name = stream_name(number) if names is None else _name(names, number)
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
            trace[at] = (0, start, Action.ALLOCATE, address, nbytes, trace_stream(stream))
        rest = trace[len(before) :]
        rest["thread"] = events["thread"]
        rest["time_us"] = events["time_ns"] // 1000
        rest["action"] = np.choose(events["event"] - 1, [Action.ALLOCATE, Action.FREE, Action.FAILURE])
        rest["pointer"] = events["address"]
        rest["bytes"] = np.minimum(events["bytes"], np.iinfo(np.int64).max)
        streams = events["stream"].astype(np.uint64)
        rest["stream"] = np.where(streams == DEFAULT_STREAM, 0, streams + FIRST_STREAM)
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
            name = stream_name(number) if names is None else _name(names, number)
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


def _columns(events: npt.NDArray[np.void]) -> list[tuple[int, ...]]:
    """Give (event, address, bytes, stream, client, tag) of each event, as ints."""
    names = ("event", "address", "bytes", "stream", "client", "tag")
    return list(zip(*(events[name].tolist() for name in names), strict=True))


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if number < len(names) else "" if number == 0 else f"number {number}"


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
    held = np.array([block[:5] for block in blocks], dtype=HELD)
    return _recording_of(parse(with_held(content or empty_content(number), held)))


def _recording_of(region: Region) -> Recording:
    parts = vars(region).copy()
    content = parts.pop("content")
    return Recording(**parts, _content=content)


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
        if size > LARGEST_FILE:
            raise RecordingError(f"{file}: {size:,} bytes are more than any recording has")
        with file.open("rb") as opened:
            if opened.read(len(MAGIC)) != MAGIC:
                raise RecordingError(f"{file}: this is no recording of cenote's flight recorder")
            opened.seek(0)
            content = opened.read()
    except OSError as error:
        raise RecordingError(f"{file}: {error.strerror}") from error
    try:
        return _recording_of(parse(content))
    except ValueError as error:
        raise RecordingError(f"{file}: {error}") from error


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
    events["stream"] = np.where(
        recorded["stream"] == 0, DEFAULT_STREAM, recorded["stream"] & np.uint64(FIRST_CAPTURED - 1)
    )
    time_ns = int(events["time_ns"].max(initial=0))
    return Recording(number, 0, time_ns, events, ("log",), (), False, 0, None, content_of(number, events, time_ns))


def is_recording_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a recording does; False if it cannot be read."""
    try:
        with path_argument(path).open("rb") as opened:
            return opened.read(len(MAGIC)) == MAGIC
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


def device_argument(device: int) -> int:
    """Give the number that an argument is; TypeError for what is none, ValueError for one that no device can have."""
    number = whole_number("device", device, "the number of a device as int")
    if not 0 <= number < 64:
        raise ValueError(f"device must be the number of a device, not {number}")
    return number
