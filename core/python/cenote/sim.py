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
import dataclasses
import difflib
import functools
import operator
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import overload

from cenote._core.environment import environment_variable, is_secure_execution

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

_LIBRARY = "libcenote_sim.so"

_MOST_CALLS = 2**31 - 1
"""The largest number that an int of C holds."""


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


@dataclasses.dataclass(frozen=True)
class LiveObject:
    """One thing that the program has made and not yet given back.

    Attributes
    ----------
    kind : str
        ``"device memory"``, ``"pinned memory"``, ``"managed memory"``, ``"memory of a pool"``, ``"pinned memory of a
        pool"``, ``"managed memory of a pool"``, ``"memory of a graph"``, ``"mapping"``, ``"reservation"``,
        ``"physical memory"``, ``"pool"``, ``"stream"``, ``"event"`` or ``"graph"``.
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


class _LiveObjectStruct(ctypes.Structure):
    """``struct cenote_sim_live_object`` of cenote_sim.h."""

    _fields_ = [
        ("kind", ctypes.c_char_p),
        ("made_by", ctypes.c_char_p),
        ("handle", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("device", ctypes.c_int),
    ]


class _LiveStruct(ctypes.Structure):
    """``struct cenote_sim_live_objects`` of cenote_sim.h: the same fields in the same order."""

    _fields_ = [(field.name, ctypes.c_uint64) for field in dataclasses.fields(LiveObjects)]


def configure(
    devices: int = 1,
    memory: str | int = "80GiB",
    driver: int | None = None,
    *,
    name: str | None = None,
    pageable: bool = False,
    peers: bool = True,
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
    settings = [
        f"devices={_whole('devices', devices)}",
        f"memory={memory}" if isinstance(memory, str) else f"memory={_whole('memory', memory)}B",
    ]
    if driver is not None:
        settings.append(f"driver={_whole('driver', driver)}")
    if name is not None:
        if not isinstance(name, str):
            raise TypeError(f"cenote.sim.configure: name must be a str, not {name!r}")
        settings.append(f"name={name}")
    if _flag("pageable", pageable):
        settings.append("pageable=1")
    if not _flag("peers", peers):
        settings.append("peers=0")
    if _whole("mig", mig) != 0:
        settings.append(f"mig={_whole('mig', mig)}")
    if _flag("poison", poison):
        settings.append("poison=1")
    for setting in settings:
        key, _, value = setting.partition("=")
        for character, called in ((",", "a comma"), ("\0", "a null character")):
            if character in value:
                raise ValueError(f"cenote.sim.configure: {key}: {value!r} has {called} in it")
    _start(",".join(settings), "configure")


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
    _require_chosen("reset")
    _start(os.environ.get("CENOTE_SIM", ""), "reset")


def uuids() -> list[str]:
    """List the UUIDs of the machine's cards, as ``CUDA_VISIBLE_DEVICES`` has them, those included that it hides.

    ``"GPU-…"`` each, or ``"MIG-…"`` of an instance where cards are split.
    """
    library = _in_use("uuids")
    text = ctypes.create_string_buffer(64)
    found: list[str] = []
    while library.cenote_sim_uuid(len(found), text, len(text)) >= 0:
        found.append(text.value.decode())
    return found


def is_active() -> bool:
    """Tell whether this process has initialised the simulated driver. Never raises, and never loads a driver."""
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
    library = _in_use("calls")
    if name is not None:
        return int(library.cenote_sim_calls(_known(name).encode()))
    counts = {each: int(library.cenote_sim_calls(each.encode())) for each in _names()}
    return {each: count for each, count in counts.items() if count}


def reset_calls() -> None:
    """Start counting driver calls from 0."""
    _in_use("reset_calls").cenote_sim_reset_calls()


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
    library = _in_use("fail")
    nth = _whole("nth", nth, "fail")
    if not 0 <= nth <= _MOST_CALLS:
        raise ValueError(f"nth must be from 0 to {_MOST_CALLS}, not {nth}")
    if times is not None and not 1 <= (times := _whole("times", times, "fail")) <= _MOST_CALLS:
        raise ValueError(f"times must be from 1 to {_MOST_CALLS}, or None for all, not {times}")
    code = _error_code(library, error)
    if library.cenote_sim_fail_from(_known(name).encode(), nth, times or 0, code) != 0:
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
    library = _in_use("live")
    struct = _LiveStruct()
    library.cenote_sim_live(ctypes.byref(struct))
    return LiveObjects(**{field.name: getattr(struct, field.name) for field in dataclasses.fields(LiveObjects)})


def live_objects() -> list[LiveObject]:
    """List what the program has made and not yet given back, in the order in which it was made.

    cenote keeps some things for later, such as events and pools of the driver that are empty.
    """
    library = _in_use("live_objects")
    there = library.cenote_sim_list_live(None, 0)
    while True:
        found = (_LiveObjectStruct * there)()
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
    library = _in_use("violations")
    lines = []
    for index in range(library.cenote_sim_violation_count()):
        text = ctypes.create_string_buffer(1024)
        if library.cenote_sim_violation(index, text, len(text)) >= 0:
            lines.append(text.value.decode())
    return lines


def clear_violations() -> None:
    """Empty the list of violations."""
    _in_use("clear_violations").cenote_sim_clear_violations()


def reports() -> list[str]:
    """List what cenote has reported of failures that it could not raise, oldest first, since :func:`clear_reports`.

    Frees that failed, pools that ended with blocks in use, leaks, writes outside of blocks that ``guard`` found: what
    stands in the log at level ``error``. A text that the log has had before, and does not repeat, counts again. The
    first 64 are kept; a last line says how many more there were.

    This asks cenote and no driver, so that it works on a GPU as well.
    """
    from cenote._core import logger

    texts = logger.kept_reports()
    more = logger.report_count() - len(texts)
    return [*texts, f"… and {more} more"] if more > 0 else texts


def clear_reports() -> None:
    """Empty the list of reports."""
    from cenote._core import logger

    logger.clear_reports()


def pending() -> int:
    """Count the pieces of work that were queued on streams and have not run."""
    return int(_in_use("pending").cenote_sim_pending())


def drain() -> None:
    """Run all pending work, on every device, as time would. No pool gives memory back for it, as after a wait."""
    _in_use("drain").cenote_sim_drain()


def _whole(name: str, value: object, function: str = "configure") -> int:
    if isinstance(value, bool):
        raise TypeError(f"cenote.sim.{function}: {name} must be an int, not {value!r}")
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        kinds = "an int or a text such as '80GiB'" if name == "memory" else "an int"
        raise TypeError(f"cenote.sim.{function}: {name} must be {kinds}, not {value!r}") from None


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"cenote.sim.configure: {name} must be True or False, not {value!r}")
    return value


def _start(settings: str, function: str) -> None:
    """Have the machine of the settings take the place of the one that there is."""
    from cenote._core import driver, registry

    if is_secure_execution():
        raise RuntimeError(
            f"cenote.sim.{function}: this program has rights that its caller has not (set-user-id, or capabilities of "
            "its file), so that CENOTE_CUDA_DRIVER is not followed and no driver can be chosen: run it without them."
        )
    library = _library()
    why = ctypes.create_string_buffer(512)
    if library.cenote_sim_check(settings.encode(), why, len(why)) != 0:
        raise ValueError(f"cenote.sim.{function}: {why.value.decode(errors='replace')}")
    if driver.is_loaded() and not driver.is_simulated():
        raise RuntimeError(
            f"cenote.sim.{function}: the CUDA driver '{driver.library()}' is already in use in this process. "
            "Call configure() before the first allocation or device query, or set CENOTE_CUDA_DRIVER=sim and "
            "CENOTE_SIM in the environment."
        )
    if is_active():
        registry.reset_all_device_resources()
        if library.cenote_sim_reset(settings.encode(), why, len(why)) != 0:
            raise RuntimeError(f"cenote.sim.{function}: {why.value.decode()}")
    if not _is_simulated(_named_driver()):
        os.environ["CENOTE_CUDA_DRIVER"] = "sim"
    os.environ["CENOTE_SIM"] = settings
    driver.forget()
    clear_reports()


def _named_driver() -> str:
    return environment_variable("CENOTE_CUDA_DRIVER") or ""


def _is_simulated(driver: str) -> bool:
    return driver == "sim" or Path(driver).name == _LIBRARY


def _require_chosen(function: str) -> None:
    """RuntimeError unless the simulated driver is in use, or will be."""
    from cenote._core import driver

    if driver.is_loaded():
        if not driver.is_simulated():
            raise RuntimeError(
                f"cenote.sim.{function}: the simulated driver is not in use: this process uses '{driver.library()}'. "
                "Choose it before anything uses a driver, with cenote.sim.configure() or CENOTE_CUDA_DRIVER=sim."
            )
    elif not _is_simulated(_named_driver()):
        raise RuntimeError(
            f"cenote.sim.{function}: the simulated driver is not in use: neither cenote.sim.configure() nor "
            "CENOTE_CUDA_DRIVER=sim has chosen it."
        )


def _in_use(function: str) -> ctypes.CDLL:
    """Return the library; RuntimeError unless the simulated driver is in use, or will be."""
    _require_chosen(function)
    return _library()


def _find_library() -> Path:
    from cenote._core import driver

    named = _named_driver()
    if named != "sim" and _is_simulated(named):
        return Path(named)
    return Path(driver.__file__).parents[1] / "lib" / _LIBRARY


@functools.cache
def _library() -> ctypes.CDLL:
    """Load the library: the copy that the core uses, as a process keeps one of each file."""
    library = ctypes.CDLL(str(_find_library()))
    library.cenote_sim_check.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
    library.cenote_sim_reset.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
    library.cenote_sim_uuid.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
    library.cenote_sim_calls.restype = ctypes.c_longlong
    library.cenote_sim_calls.argtypes = [ctypes.c_char_p]
    library.cenote_sim_reset_calls.restype = None
    library.cenote_sim_name.restype = ctypes.c_char_p
    library.cenote_sim_name.argtypes = [ctypes.c_int]
    library.cenote_sim_fail_from.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    library.cenote_sim_error.argtypes = [ctypes.c_char_p]
    library.cenote_sim_live.restype = None
    library.cenote_sim_live.argtypes = [ctypes.POINTER(_LiveStruct)]
    library.cenote_sim_list_live.restype = ctypes.c_size_t
    library.cenote_sim_list_live.argtypes = [ctypes.POINTER(_LiveObjectStruct), ctypes.c_size_t]
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
    if not isinstance(name, str):
        raise TypeError(f"cenote.sim: name must be a str such as 'cuMemAlloc', not {name!r}")
    if name in _names():
        return name
    close = difflib.get_close_matches(name, _names())
    hint = f"; close are {', '.join(close)}" if close else ""
    raise ValueError(f"the simulated driver has no entry point {name!r}{hint}")


def _error_code(library: ctypes.CDLL, error: str | int) -> int:
    if not isinstance(error, str):
        error = _whole("error", error, "fail")
        return error if error <= _MOST_CALLS else 0  # no code of an error
    code = int(library.cenote_sim_error(error.encode()))
    if code < 0:
        raise ValueError(f"{error!r} is not the name of a CUDA error, such as 'CUDA_ERROR_OUT_OF_MEMORY'")
    return code
