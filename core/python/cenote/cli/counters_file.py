"""The files in which processes count what they hold (``ground/process_counters.hpp``), read from outside."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cenote._core.environment import is_secure_execution

__all__ = ["CountersError", "Device", "Figures", "Process", "folder_of_counters", "processes", "read_process"]

_MAGIC = b"cenotePC"
_VERSION = 1
_MOST_FILES = 4096
_NAME = re.compile(r"\d+-\d+")
_SECONDS_TO_MAKE_ONE = 5

_HEAD = np.dtype(
    [
        ("magic", "S8"),
        *((name, "<u4") for name in ("version", "process", "devices", "clients", "tags", "name_bytes")),
        ("started_ns", "<u8"),
        ("unused", "<u8", 3),
    ]
)
_FIGURES = [("bytes", "<u8"), ("peak", "<u8"), ("blocks", "<u8"), ("allocations", "<u8")]
_DEVICE = np.dtype([("lock", "<u8"), ("held", "<u8"), ("most_held", "<u8"), ("growths", "<u8"), ("unused", "<u8", 4)])
_TAG = np.dtype([("lock", "<u8"), *_FIGURES, ("unused", "<u8", 3)])
_CLIENT = np.dtype([*_TAG.descr, ("of_device", "<u8", 64)])
_DEVICES, _CLIENTS, _TAGS, _NAME_BYTES = 64, 32, 1024, 64
_BYTES = (
    _HEAD.itemsize
    + _DEVICES * _DEVICE.itemsize
    + _CLIENTS * _CLIENT.itemsize
    + _TAGS * _TAG.itemsize
    + (_CLIENTS + _TAGS) * _NAME_BYTES
)


class CountersError(ValueError):
    """A folder or a file of counters is none, or is damaged. The text names it and says what is wrong with it."""


@dataclass(frozen=True)
class Figures:
    """What a client or a tag holds.

    Attributes
    ----------
    bytes, peak_bytes : int
        Now, and at the most.
    blocks, allocations : int
        Blocks that are held, and how many were made in all.
    """

    bytes: int
    peak_bytes: int
    blocks: int
    allocations: int


@dataclass(frozen=True)
class Device:
    """What a process has of a device.

    Attributes
    ----------
    in_use : int
        Bytes that its clients hold.
    held, most_held : int
        Bytes that its pools hold, now and at the most.
    growths : int
        How often a pool has taken memory.
    """

    in_use: int
    held: int
    most_held: int
    growths: int

    @property
    def unused_share(self) -> float | None:
        """The part of what the pools hold that is not in use; None where they hold less than is in use."""
        return 1 - self.in_use / self.held if self.held and self.in_use <= self.held else None


@dataclass(frozen=True)
class Process:
    """The counters of a process at one moment.

    Attributes
    ----------
    number : int
        Of the process.
    command : str
        Its command line, without the folder of the program; empty where it is not to be seen.
    started_ns : int
        When it first counted, in nanoseconds since 1970.
    devices : dict of int to Device
        Those of which anything is, or was, held.
    clients, tags : dict of str to Figures
        Those that have ever allocated, the largest first.
    """

    number: int
    command: str
    started_ns: int
    devices: dict[int, Device]
    clients: dict[str, Figures]
    tags: dict[str, Figures]

    @property
    def in_use(self) -> int:
        """Bytes that its clients hold."""
        return sum(client.bytes for client in self.clients.values())

    @property
    def allocations(self) -> int:
        """How many its clients have made."""
        return sum(client.allocations for client in self.clients.values())


def folder_of_counters() -> Path | None:
    """Give the folder in which this user's processes count; None where the environment switches them off."""
    named = "" if is_secure_execution() else os.environ.get("CENOTE_COUNTERS", "")
    if named == "off":
        return None
    return Path(named or f"/dev/shm/cenote-{os.geteuid()}")


def processes(folder: Path, problems: list[str] | None = None) -> Iterator[Process]:
    """Read the counters of all processes that live, and remove the files of the others.

    Parameters
    ----------
    folder : Path
        What `folder_of_counters` gave. One that is not there has no processes.
    problems : list of str, optional
        Takes up what is wrong with files that cannot be read.

    Raises
    ------
    CountersError
        If the folder is not this user's alone to write.
    """
    if not _is_there(folder):
        return
    for name in sorted(filter(_NAME.fullmatch, os.listdir(folder)))[:_MOST_FILES]:
        try:
            process = read_process(folder / name)
        except CountersError as error:
            if problems is not None:
                problems.append(str(error))
            continue
        if process is not None:
            yield process


def _is_there(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CountersError(f"{folder}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise CountersError(f"{folder}: it is no folder")
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise CountersError(f"{folder}: it is not this user's alone, so that what lies in it may be anybody's")
    return True


def read_process(path: Path) -> Process | None:
    """Read the counters of one process; None, and the file is removed, if the process has ended.

    Raises
    ------
    CountersError
        If it is no such file, is damaged, or another user's.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CountersError(f"{path}: {error.strerror}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise CountersError(f"{path}: it is not a file of this user's")
        if found.st_size == 0 and time.time() - found.st_mtime < _SECONDS_TO_MAKE_ONE:
            return None
        content = os.pread(descriptor, _BYTES, 0)
        is_unfinished = content.startswith(bytes(len(_MAGIC))) or not content
        if not (is_unfinished or content.startswith(_MAGIC)):
            raise CountersError(f"{path}: these are no counters of a process")
        if _has_ended(descriptor):
            path.unlink(missing_ok=True)
            return None
        if is_unfinished:
            return None
    finally:
        os.close(descriptor)
    return _parse(content, path)


def _has_ended(descriptor: int) -> bool:
    """Whether the process has let go of the lock that it has for as long as it lives."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _parse(content: bytes, path: Path) -> Process:
    if len(content) < _BYTES:
        raise CountersError(f"{path}: the file is cut short, at {len(content):,} bytes of {_BYTES:,}")
    (head,) = np.frombuffer(content, _HEAD, 1).tolist()
    _, version, number, *sizes, started_ns, _ = head
    if version != _VERSION:
        raise CountersError(f"{path}: counters of version {version}, and this cenote reads version {_VERSION}")
    if sizes != [_DEVICES, _CLIENTS, _TAGS, _NAME_BYTES]:
        raise CountersError(f"{path}: the file is damaged: its header contradicts itself")
    at = _HEAD.itemsize
    parts = []
    for dtype, count in ((_DEVICE, _DEVICES), (_CLIENT, _CLIENTS), (_TAG, _TAGS)):
        parts.append(np.frombuffer(content, dtype, count, at))
        at += count * dtype.itemsize
    devices, clients, tags = parts
    names = [
        content[begin : begin + _NAME_BYTES].split(b"\0", 1)[0].decode("utf-8", "replace")
        for begin in range(at, at + (_CLIENTS + _TAGS) * _NAME_BYTES, _NAME_BYTES)
    ]
    in_use = [sum(column) for column in zip(*clients["of_device"].tolist(), strict=True)]
    return Process(
        number=number,
        command=_command_of(number),
        started_ns=started_ns,
        devices={
            device: Device(in_use[device], *devices[device].item()[1:4])
            for device in range(_DEVICES)
            if in_use[device] or devices["most_held"][device]
        },
        clients=_figures(clients, names[:_CLIENTS]),
        tags=_figures(tags, names[_CLIENTS:]),
    )


def _figures(counters: npt.NDArray[np.void], names: list[str]) -> dict[str, Figures]:
    figures = {}
    for at in np.flatnonzero(counters["allocations"]).tolist():
        figures[names[at] or f"number {at}"] = Figures(*counters[at].item()[1:5])
    return dict(sorted(figures.items(), key=lambda item: -item[1].bytes))


def _command_of(number: int) -> str:
    try:
        words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    words[0] = words[0].rpartition(b"/")[2]
    return " ".join(word.decode("utf-8", "replace") for word in words if word)
