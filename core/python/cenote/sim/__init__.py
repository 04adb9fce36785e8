"""The simulated CUDA driver, from Python: choose it, watch it, make it fail.

The simulated driver stands in for ``libcuda.so.1`` over host memory: any number of cards of any size on a machine with
none. Work on its streams advances only when something waits for it, so that an ordering mistake shows every time; it
writes down what a program did wrong, counts every driver call, and fails the calls that a test names.

>>> import cenote.sim
>>> cenote.sim.configure(devices=2, memory="80GiB")
>>> ...                                                 # code under test
>>> cenote.sim.calls("cuMemAlloc")
1
>>> with cenote.sim.failing("cuMemAlloc", nth=2):
...     ...                                             # its second cuMemAlloc from here runs out of memory
>>> assert not cenote.sim.violations() and not cenote.sim.reports()

What asks or changes the simulated driver raises RuntimeError where the process uses another driver, or where nothing
has chosen the simulated one: a test that was meant for it does not pass on a GPU with nothing checked.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import overload

from cenote._core import logger
from cenote.sim._library import (
    LiveObjectStruct,
    LiveStruct,
    entry_points,
    in_use,
    known_entry_point,
    load_library,
    require_chosen,
)
from cenote.sim._machine import spell_settings, start, whole_number

__all__ = [
    "LiveObject",
    "LiveObjects",
    "calls",
    "clear_reports",
    "clear_violations",
    "configure",
    "drain",
    "fail",
    "failing",
    "is_active",
    "live",
    "live_objects",
    "pending",
    "reports",
    "reset",
    "reset_calls",
    "uuids",
    "violations",
]

_MOST_CALLS = 2**31 - 1
"""The largest number that an int of C holds."""


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class LiveObject:
    """One thing that the program has made and not yet given back.

    Attributes
    ----------
    kind : str
        ``"device memory"``, ``"pinned memory"``, ``"managed memory"``, ``"memory of a pool"``, ``"pinned memory of a
        pool"``, ``"managed memory of a pool"``, ``"memory of a graph"``, ``"mapping"``, ``"reservation"``,
        ``"physical memory"``, ``"pool"``, ``"stream"``, ``"event"``, ``"graph"`` or ``"executable graph"``.
    made_by : str
        Base name of the driver call that made it.
    handle : int
        Its address, or the driver's handle.
    bytes : int
        As asked for; of a pool, what it has taken from the device; 0 for what has no size.
    number : int
        1, 2, … in the order in which things were made.
    device : int or None
        Where it is, if it is on a device.
    """

    kind: str
    made_by: str
    handle: int
    bytes: int
    number: int
    device: int | None


def configure(
    devices: int = 1,
    memory: str | int = "80GiB",
    driver: int | None = None,
    *,
    name: str | None = None,
    pageable: bool = False,
    peers: bool = True,
    virtual_memory: bool = True,
    mig: int = 0,
    poison: bool = False,
) -> None:
    """Select the simulated driver for this process, and say what machine it simulates.

    It sets the environment variables ``CENOTE_CUDA_DRIVER`` and ``CENOTE_SIM``, so that child processes inherit the
    choice. Where the simulated driver is in use already, that machine ends as :func:`reset` says, and this one takes
    its place.

    Parameters
    ----------
    devices : int
        How many cards there are, from 0 (then there is a driver and no device) to 64.
    memory : str or int
        Memory of each card, up to 4 TiB: bytes, or text with a unit (B, KB, MB, GB, TB, KiB, MiB, GiB, TiB). What is
        written to it takes as much of the host's.
    driver : int, optional
        The CUDA version that the driver implements, such as 12040 for 12.4, from 11000 to 13000, which is the default:
        an older one lacks newer entry points.
    name : str, optional
        Of each card: up to 255 bytes in UTF-8, without commas.
    pageable : bool
        Whether devices may use any memory of the host, such as ``malloc``'s, as on a Grace Hopper or with HMM.
    peers : bool
        Whether devices can use the memory of one another.
    virtual_memory : bool
        Whether devices have virtual memory (``cuMemCreate``, ``cuMemMap``), which a vGPU may not have.
    mig : int
        How many MIG instances each card is split into, up to 7, of equal memory; a process sees one of all of them. 0:
        cards are not split.
    poison : bool
        Whether every byte of fresh and of freed memory is overwritten: with 0xa5 and 0xdd. What is allocated then
        takes as much of the host's memory.

    Raises
    ------
    ValueError
        If there is no such machine; the text names the argument.
    TypeError
        If an argument is not of its type.
    RuntimeError
        If the driver of a GPU is in use in this process, or no variable is followed (a set-user-id program).
    """
    start(spell_settings(devices, memory, driver, name, pageable, peers, virtual_memory, mig, poison), "configure")


def reset() -> None:
    """End the simulated machine and start another one of the same kind, as ``CENOTE_SIM`` says.

    All queued work runs first. Then memory of every kind is gone, as are counts, armed failures, violations and
    reports, and the current resource of every device is the one that it has at the start. The calling thread has no
    current device. No other thread may use the driver meanwhile.

    What the program still has from before does no harm. Memory that is freed later is gone already, and nothing
    happens; any other use of it is an error and a violation. So a pool from before, which still hands out addresses
    that it had, is of no use: make a new one. Streams, and the driver's own pools, can be used as before where their
    device is still there.

    Raises
    ------
    ValueError
        If ``CENOTE_SIM`` has become wrong; then nothing is changed.
    RuntimeError
        If the simulated driver is not in use, nor chosen.
    """
    require_chosen("reset")
    start(os.environ.get("CENOTE_SIM", ""), "reset")


def uuids() -> list[str]:
    """List the UUIDs of the machine's cards, as ``CUDA_VISIBLE_DEVICES`` has them, those included that it hides.

    ``"GPU-…"`` each, or ``"MIG-…"`` of an instance where cards are split.
    """
    library = in_use("uuids")
    text = ctypes.create_string_buffer(64)
    found: list[str] = []
    while library.cenote_sim_uuid(len(found), text, len(text)) >= 0:
        found.append(text.value.decode())
    return found


def is_active() -> bool:
    """Tell whether this process has initialised the simulated driver. Never raises, and never loads a driver."""
    return bool(load_library().cenote_sim_initialized())


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
    library = in_use("calls")
    if name is not None:
        return int(library.cenote_sim_calls(known_entry_point(name).encode()))
    counts = {each: int(library.cenote_sim_calls(each.encode())) for each in entry_points()}
    return {each: count for each, count in counts.items() if count}


def reset_calls() -> None:
    """Start counting driver calls from 0."""
    in_use("reset_calls").cenote_sim_reset_calls()


def fail(name: str, nth: int = 1, error: str | int = "CUDA_ERROR_OUT_OF_MEMORY", *, times: int | None = 1) -> None:
    """Make coming driver calls fail, with no effect.

    Several names may be armed at once; arming one again replaces what was armed.

    Parameters
    ----------
    name : str
        Base name of an entry point: ``"cuMemAlloc"``.
    nth : int
        The first call of that name, from now, that fails: 1 is the very next. 0 cancels.
    error : str or int
        What the call returns, by name or code.
    times : int, optional
        How many calls in a row fail from then on; None: all of them, until that is cancelled.

    Raises
    ------
    ValueError
        If the name, the error, `nth` or `times` makes no sense.
    TypeError
        If an argument is not of its type.
    """
    library = in_use("fail")
    nth = whole_number("nth", nth, "fail")
    if not 0 <= nth <= _MOST_CALLS:
        raise ValueError(f"nth must be from 0 to {_MOST_CALLS}, not {nth}")
    if times is not None and not 1 <= (times := whole_number("times", times, "fail")) <= _MOST_CALLS:
        raise ValueError(f"times must be from 1 to {_MOST_CALLS}, or None for all, not {times}")
    code = _error_code(library, error)
    if library.cenote_sim_fail_from(known_entry_point(name).encode(), nth, times or 0, code) != 0:
        raise ValueError(f"error must be a code other than success, not {error!r}")


@contextmanager
def failing(
    name: str, nth: int = 1, error: str | int = "CUDA_ERROR_OUT_OF_MEMORY", *, times: int | None = 1
) -> Iterator[None]:
    """Arm failures as :func:`fail` does, and cancel at the end of the block what has not come by then."""
    fail(name, nth, error, times=times)
    try:
        yield
    finally:
        fail(name, nth=0)


def live() -> LiveObjects:
    """Report what the program has made and not yet given back."""
    library = in_use("live")
    struct = LiveStruct()
    library.cenote_sim_live(ctypes.byref(struct))
    return LiveObjects(**{field[0]: getattr(struct, field[0]) for field in LiveStruct._fields_})


def live_objects() -> list[LiveObject]:
    """List what the program has made and not yet given back, in the order in which it was made.

    cenote keeps some things for later, such as events and pools of the driver that are empty.
    """
    library = in_use("live_objects")
    there = library.cenote_sim_list_live(None, 0)
    while True:
        found = (LiveObjectStruct * there)()
        capacity, there = there, library.cenote_sim_list_live(found, there)
        if there <= capacity:
            break
    return [
        LiveObject(
            kind=each.kind.decode(),
            made_by=each.made_by.decode(),
            handle=each.handle,
            bytes=each.bytes,
            number=each.number,
            device=each.device if each.device >= 0 else None,
        )
        for each in found[:there]
    ]


def violations() -> list[str]:
    """List what the program did wrong, one line each, oldest first.

    A dead handle used, an unknown pointer freed or one freed twice, an illegal call while a stream captures, memory
    touched after it was freed in stream order.
    """
    library = in_use("violations")
    lines = []
    for index in range(library.cenote_sim_violation_count()):
        text = ctypes.create_string_buffer(1024)
        if library.cenote_sim_violation(index, text, len(text)) >= 0:
            lines.append(text.value.decode())
    return lines


def clear_violations() -> None:
    """Empty the list of violations."""
    in_use("clear_violations").cenote_sim_clear_violations()


def reports() -> list[str]:
    """List what cenote has reported of failures that it could not raise, oldest first, since :func:`clear_reports`.

    Frees that failed, pools that ended with blocks in use, leaks, writes outside of blocks that ``guard`` found: what
    stands in the log at level ``error``. A text that the log has had before, and does not repeat, counts again. The
    first 64 are kept; a last line says how many more there were.

    This asks cenote and no driver, so that it works on a GPU as well.
    """
    texts = logger.kept_reports()
    more = logger.report_count() - len(texts)
    return [*texts, f"… and {more} more"] if more > 0 else texts


def clear_reports() -> None:
    """Empty the list of reports."""
    logger.clear_reports()


def pending() -> int:
    """Count the pieces of work that were queued on streams and have not run."""
    return int(in_use("pending").cenote_sim_pending())


def drain() -> None:
    """Run all pending work, on every device, as time would. No pool gives memory back for it, as after a wait."""
    in_use("drain").cenote_sim_drain()


def _error_code(library: ctypes.CDLL, error: str | int) -> int:
    if not isinstance(error, str):
        error = whole_number("error", error, "fail")
        return error if error <= _MOST_CALLS else 0  # no code of an error
    code = int(library.cenote_sim_error(error.encode()))
    if code < 0:
        raise ValueError(f"{error!r} is not the name of a CUDA error, such as 'CUDA_ERROR_OUT_OF_MEMORY'")
    return code
