"""What a process may hold of each device, in all its resources together. Documented in `cenote`."""

from __future__ import annotations

import atexit
import os
import re
import stat
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from cenote import driver
from cenote._core.arguments import whole_number
from cenote._core.budget import budget_of, device_uuid, requests_of_budget, set_budget, share_budget
from cenote._core.budget import set_budget_by as set_budget_by
from cenote._core.registry import find_per_device_resource

__all__ = ["Budget", "budget", "get_budget"]


@dataclass(frozen=True)
class Budget:
    """What a process may hold of a device, and what it holds; in bytes."""

    device: int
    limit: int | None
    """None where there is no budget."""
    held: int
    shared: int
    """What all processes hold that share the budget; `held` where none does."""


def budget(amount: int | str | None, device: int | None = None, *, share: str | None = None) -> None:
    """Bound what this process holds of each device, in all its resources together.

    It holds for pages and chunks of pools, for ``cuda``, ``virtual`` and ``async``, whose driver's pool may pass
    it by what it grows by at a time. Where there is no room, memory has run out as if the device had none: an
    allocation raises the usual error, which names the budget where that is the smallest limit. Not in it are managed
    and host memory, the driver's contexts, and what libraries take that do not allocate from cenote.

    What is held already stays. The environment variable ``CENOTE_BUDGET`` sets one at the start.

    Parameters
    ----------
    amount : int or str or None
        Bytes, also as a text such as ``"20GiB"``, or a share of each device's memory, such as ``"60%"``. None for no
        budget; of one device, for that of all.
    device : int, optional
        The one device that it holds for; all that have none of their own if not given.
    share : str, optional
        A name, of letters, digits, ``.``, ``-`` and ``_``: all processes of this user on this host that give the same
        one have the budget together, on each card. One that finds no room asks the others, which trim their current
        resources, and waits a second at the most. A process that has ended holds nothing, however it ended. Say so
        before the device is used.

    Raises
    ------
    TypeError
        An amount of another type.
    ValueError
        An amount that is neither, or a name that cannot be one of a file.
    IndexError
        There is no such device.
    RuntimeError
        The file of the name is not this user's, or 256 processes share it.
    """
    if not isinstance(share, str | None):
        raise TypeError(f"share must be a name, not {type(share).__name__}")
    if share is not None and not re.fullmatch(r"[\w-][\w.-]{0,99}", share, re.ASCII):
        raise ValueError(f"share must be a name of letters, digits, '.', '-' and '_', not {share!r}")
    if amount is None:
        text = ""
    elif isinstance(amount, str):
        text = amount.strip()
        if not text:
            raise ValueError("amount must be bytes or a share for a budget, and is empty: None is for no budget")
    else:
        text = str(whole_number("amount", amount, "bytes as int, or a text such as '20GiB' or '60%'"))
    set_budget(text, device)
    if share is None and not _shared:
        return
    for each in range(driver.device_count()) if device is None else (device,):
        share_budget(each, -1 if share is None else _open_account(share, each))
        with _lock:
            _shared.pop(each, None)
            if share is not None:
                _shared[each] = requests_of_budget(each)
    if share is not None:
        _start_watching()


def get_budget(device: int | None = None) -> Budget:
    """Give the budget of a device, the current one if none is given, and what the process holds of it.

    Raises
    ------
    IndexError
        There is no such device.
    """
    number = driver.current_device() if device is None else device
    return Budget(number, *budget_of(number))


_PAUSE_SECONDS = 0.05

_lock = threading.Lock()  # guards all below
_shared: dict[int, int] = {}
"""The devices whose budget is shared, and how many requests of other processes have been answered."""
_watcher: threading.Thread | None = None
_stopped = threading.Event()


def _open_account(share: str, device: int) -> int:
    """Open the file in which the processes of a share keep account of one card; only this user's is taken."""
    folder = Path("/dev/shm") if os.path.isdir("/dev/shm") else Path(tempfile.gettempdir())
    path = folder / f"cenote-budget-{os.getuid()}-{share}-{device_uuid(device)}"
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RuntimeError(f"the file of a shared budget cannot be opened: {error}") from error
    found = os.fstat(file)
    if found.st_uid != os.getuid() or not stat.S_ISREG(found.st_mode):
        os.close(file)
        raise RuntimeError(f"the file of a shared budget, {path}, is not one of this user's")
    return file


def _start_watching() -> None:
    global _watcher
    with _lock:
        if _watcher is None or not _watcher.is_alive():
            _stopped.clear()
            _watcher = threading.Thread(target=_watch, name="cenote-budget", daemon=True)
            _watcher.start()


def _watch() -> None:
    """Trim the current resource of a device whenever a process has asked those that share its budget."""
    while not _stopped.wait(_PAUSE_SECONDS):
        with _lock:
            answered = dict(_shared)
        for device, requests in answered.items():
            asked = requests_of_budget(device)
            if asked == requests:
                continue
            with _lock:
                if device in _shared:
                    _shared[device] = asked
            resource = find_per_device_resource(device)
            if resource is not None:
                resource.trim()


@atexit.register
def _stop() -> None:
    """Before the interpreter goes: a daemon thread that wakes up during its end cannot take the GIL any more."""
    _stopped.set()
    if _watcher is not None:
        _watcher.join(timeout=1.0)


def _forget() -> None:
    """In a forked child, which has neither the thread nor the device."""
    global _lock, _watcher, _stopped
    _lock, _watcher, _stopped = threading.Lock(), None, threading.Event()
    _shared.clear()


os.register_at_fork(after_in_child=_forget)
