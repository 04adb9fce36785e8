"""The simulated CUDA driver, from Python: choose it, watch it, make it fail.

The simulated driver stands in for ``libcuda.so.1`` over host memory: any number of cards of any size on a machine with
none. Work on its streams advances only when something waits for it, so that an ordering mistake shows every time; it
writes down what a program did wrong, counts every driver call, and fails the call that a test names.

>>> import cenote.sim
>>> cenote.sim.configure(devices=2, memory="80GiB")     # before anything uses the driver
>>> ...                                                 # code under test
>>> cenote.sim.calls("cuMemAlloc")
1
>>> with cenote.sim.failing("cuMemAlloc", nth=2):
...     ...                                             # its second cuMemAlloc from here runs out of memory
>>> assert not cenote.sim.violations()
"""

from __future__ import annotations

import ctypes
import dataclasses
import difflib
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import overload

__all__ = [
    "LiveObjects",
    "calls",
    "clear_violations",
    "configure",
    "drain",
    "fail",
    "failing",
    "is_active",
    "live",
    "pending",
    "reset_calls",
    "violations",
]

# Where the library is looked for instead of inside the installed package; for tests of this module alone.
_library_path: Path | None = None


@dataclasses.dataclass(frozen=True)
class LiveObjects:
    """What the program has made and not yet given back, over all simulated devices.

    Attributes
    ----------
    device_bytes : int
        Bytes taken from the cards: allocations, segments of pools, physical memory.
    pinned_bytes, managed_bytes : int
        Bytes of page-locked host memory and of managed memory, as asked for.
    allocations : int
        Pieces of device, pinned, managed and pooled memory.
    pools, streams : int
        Without the default ones, which every device has.
    events, graphs : int
    contexts : int
        Primary contexts that are retained.
    reservations, mappings, handles : int
        Of the virtual memory interface: reserved address ranges, mappings, and handles of physical memory.
    """

    device_bytes: int
    pinned_bytes: int
    managed_bytes: int
    allocations: int
    pools: int
    streams: int
    events: int
    graphs: int
    contexts: int
    reservations: int
    mappings: int
    handles: int


class _LiveStruct(ctypes.Structure):
    """``struct cenote_sim_live_objects`` of cenote_sim.h: the same fields in the same order."""

    _fields_ = [(field.name, ctypes.c_uint64) for field in dataclasses.fields(LiveObjects)]


def configure(
    devices: int = 1,
    memory: str | int = "80GiB",
    driver: int | None = None,
    *,
    pageable: bool = False,
    peers: bool = True,
) -> None:
    """Select the simulated driver for this process.

    It sets the environment variables ``CENOTE_CUDA_DRIVER`` and ``CENOTE_SIM``, which are read when the driver is
    first used; call it before that. Child processes inherit the choice.

    Parameters
    ----------
    devices : int
        How many cards there are, from 0 (then there is a driver and no device) to 64.
    memory : str or int
        Memory of each card: bytes, or text with a unit (B, KB, MB, GB, TB, KiB, MiB, GiB, TiB).
    driver : int, optional
        The CUDA version that the driver implements, such as 12040 for 12.4: an older one lacks newer entry points.
    pageable : bool
        Whether devices may use any memory of the host, such as ``malloc``'s, as on a Grace Hopper or with HMM.
    peers : bool
        Whether devices can use the memory of one another.

    Raises
    ------
    RuntimeError
        If a driver is already in use in this process.
    """
    if _driver_is_loaded():
        raise RuntimeError(
            "cenote.sim.configure: a CUDA driver is already in use in this process. "
            "Call configure() before the first allocation or device query, or set CENOTE_CUDA_DRIVER=sim and "
            "CENOTE_SIM in the environment."
        )
    settings = [f"devices={devices}", f"memory={memory}B" if isinstance(memory, int) else f"memory={memory}"]
    if driver is not None:
        settings.append(f"driver={driver}")
    if pageable:
        settings.append("pageable=1")
    if not peers:
        settings.append("peers=0")
    os.environ["CENOTE_CUDA_DRIVER"] = "sim"
    os.environ["CENOTE_SIM"] = ",".join(settings)


def is_active() -> bool:
    """Tell whether this process has initialised the simulated driver."""
    return bool(_library().cenote_sim_initialized())


@overload
def calls() -> dict[str, int]: ...
@overload
def calls(name: str) -> int: ...
def calls(name: str | None = None) -> dict[str, int] | int:
    """Count driver calls since the last :func:`reset_calls`, failed ones included.

    Parameters
    ----------
    name : str, optional
        Base name of an entry point: ``"cuMemAlloc"``, not ``"cuMemAlloc_v2"``.

    Returns
    -------
    int or dict of str to int
        Calls of that name; without a name, of every name that was called at all.

    Raises
    ------
    ValueError
        If the driver has no entry point of that name.
    """
    if name is not None:
        return _count(name)
    return {each: count for each in _names() if (count := _count(each))}


def reset_calls() -> None:
    """Start counting driver calls from 0."""
    _library().cenote_sim_reset_calls()


def fail(name: str, nth: int = 1, error: str | int = "CUDA_ERROR_OUT_OF_MEMORY") -> None:
    """Make one coming driver call fail, with no effect.

    Several names may be armed at once; arming one again replaces what was armed.

    Parameters
    ----------
    name : str
        Base name of an entry point: ``"cuMemAlloc"``.
    nth : int
        Which call of that name from now: 1 is the very next. 0 cancels.
    error : str or int
        What the call returns, by name or code.

    Raises
    ------
    ValueError
        If the name, the error or `nth` makes no sense.
    """
    if nth < 0:
        raise ValueError(f"nth must be 0 or more, not {nth}")
    code = _error_code(error)
    if _library().cenote_sim_fail(_known(name).encode(), nth, code) != 0:
        raise ValueError(f"error must be a code other than success, not {error!r}")


@contextmanager
def failing(name: str, nth: int = 1, error: str | int = "CUDA_ERROR_OUT_OF_MEMORY") -> Iterator[None]:
    """Arm a failure as :func:`fail` does, and cancel it at the end of the block if the call never came."""
    fail(name, nth, error)
    try:
        yield
    finally:
        fail(name, nth=0)


def live() -> LiveObjects:
    """Report what the program has made and not yet given back."""
    struct = _LiveStruct()
    _library().cenote_sim_live(ctypes.byref(struct))
    return LiveObjects(**{field.name: getattr(struct, field.name) for field in dataclasses.fields(LiveObjects)})


def violations() -> list[str]:
    """List what the program did wrong, one line each, oldest first.

    A dead handle used, an unknown pointer freed or one freed twice, an illegal call while a stream captures, memory
    touched after it was freed in stream order.
    """
    lines = []
    for index in range(_library().cenote_sim_violation_count()):
        text = ctypes.create_string_buffer(1024)
        if _library().cenote_sim_violation(index, text, len(text)) >= 0:
            lines.append(text.value.decode())
    return lines


def clear_violations() -> None:
    """Empty the list of violations."""
    _library().cenote_sim_clear_violations()


def pending() -> int:
    """Count the pieces of work that were queued on streams and have not run."""
    return int(_library().cenote_sim_pending())


def drain() -> None:
    """Run all pending work, on every device."""
    _library().cenote_sim_drain()


def _driver_is_loaded() -> bool:
    if _library_path is not None:
        return is_active()
    from cenote import _driver

    return bool(_driver.is_loaded())


def _find_library() -> Path:
    if _library_path is not None:
        return _library_path
    from cenote import _driver

    return Path(_driver.__file__).parent / "lib" / "libcenote_sim.so"


@functools.cache
def _library() -> ctypes.CDLL:
    """Load the library: the copy that the core uses, as a process keeps one of each file."""
    library = ctypes.CDLL(str(_find_library()))
    library.cenote_sim_calls.restype = ctypes.c_longlong
    library.cenote_sim_calls.argtypes = [ctypes.c_char_p]
    library.cenote_sim_reset_calls.restype = None
    library.cenote_sim_name.restype = ctypes.c_char_p
    library.cenote_sim_name.argtypes = [ctypes.c_int]
    library.cenote_sim_fail.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
    library.cenote_sim_error.argtypes = [ctypes.c_char_p]
    library.cenote_sim_live.restype = None
    library.cenote_sim_live.argtypes = [ctypes.POINTER(_LiveStruct)]
    library.cenote_sim_violation.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
    library.cenote_sim_clear_violations.restype = None
    library.cenote_sim_pending.restype = ctypes.c_uint64
    library.cenote_sim_drain.restype = None
    return library


@functools.cache
def _names() -> tuple[str, ...]:
    names: list[str] = []
    while (name := _library().cenote_sim_name(len(names))) is not None:
        names.append(name.decode())
    return tuple(names)


def _known(name: str) -> str:
    if name in _names():
        return name
    close = difflib.get_close_matches(name, _names())
    hint = f"; close are {', '.join(close)}" if close else ""
    raise ValueError(f"the simulated driver has no entry point {name!r}{hint}")


def _count(name: str) -> int:
    return int(_library().cenote_sim_calls(_known(name).encode()))


def _error_code(error: str | int) -> int:
    if isinstance(error, int):
        return error
    code = int(_library().cenote_sim_error(error.encode()))
    if code < 0:
        raise ValueError(f"{error!r} is not the name of a CUDA error, such as 'CUDA_ERROR_OUT_OF_MEMORY'")
    return code
