"""The library of the simulated driver: where it is, what its functions take, and whether the process uses it."""

from __future__ import annotations

import ctypes
import difflib
import functools
from pathlib import Path

from cenote._core import driver
from cenote._core.environment import environment_variable

_FILE_NAME = "libcenote_sim.so"


class LiveObjectStruct(ctypes.Structure):
    """``struct cenote_sim_live_object`` of cenote_sim.h."""

    _fields_ = [
        ("kind", ctypes.c_char_p),
        ("made_by", ctypes.c_char_p),
        ("handle", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("device", ctypes.c_int),
    ]


class LiveStruct(ctypes.Structure):
    """``struct cenote_sim_live_objects`` of cenote_sim.h."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            *("device_bytes", "pinned_bytes", "managed_bytes"),
            *("allocations", "pools", "streams", "events", "graphs", "contexts"),
            *("reservations", "mappings", "handles"),
        )
    ]


def named_driver() -> str:
    return environment_variable("CENOTE_CUDA_DRIVER") or ""


def is_simulated(name: str) -> bool:
    return name == "sim" or Path(name).name == _FILE_NAME


def is_libcuda() -> bool:
    """Whether ``libcuda.so.1`` is the simulated driver here, so that what loads it runs on simulated devices."""
    try:
        return hasattr(ctypes.CDLL("libcuda.so.1"), "cenote_sim_check")
    except OSError:
        return False


def require_chosen(function: str) -> None:
    """RuntimeError unless the simulated driver is in use, or will be."""
    if driver.is_loaded():
        if not driver.is_simulated():
            raise RuntimeError(
                f"cenote.sim.{function}: the simulated driver is not in use: this process uses '{driver.library()}'. "
                "Choose it before anything uses a driver, with cenote.sim.configure() or CENOTE_CUDA_DRIVER=sim."
            )
    elif not is_simulated(named_driver()):
        raise RuntimeError(
            f"cenote.sim.{function}: the simulated driver is not in use: neither cenote.sim.configure() nor "
            "CENOTE_CUDA_DRIVER=sim has chosen it."
        )


def in_use(function: str) -> ctypes.CDLL:
    """Return the library; RuntimeError unless the simulated driver is in use, or will be."""
    require_chosen(function)
    return load_library()


def find_library() -> Path:
    named = named_driver()
    if named != "sim" and is_simulated(named):
        return Path(named)
    return Path(driver.__file__).parents[1] / "lib" / _FILE_NAME


@functools.cache
def load_library() -> ctypes.CDLL:
    """Load the library: the copy that the core uses, as a process keeps one of each file."""
    library = ctypes.CDLL(str(find_library()))
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
    library.cenote_sim_live.argtypes = [ctypes.POINTER(LiveStruct)]
    library.cenote_sim_list_live.restype = ctypes.c_size_t
    library.cenote_sim_list_live.argtypes = [ctypes.POINTER(LiveObjectStruct), ctypes.c_size_t]
    library.cenote_sim_violation.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
    library.cenote_sim_clear_violations.restype = None
    library.cenote_sim_pending.restype = ctypes.c_uint64
    library.cenote_sim_drain.restype = None
    return library


@functools.cache
def entry_points() -> tuple[str, ...]:
    names: list[str] = []
    while (name := load_library().cenote_sim_name(len(names))) is not None:
        names.append(name.decode())
    return tuple(names)


def known_entry_point(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"cenote.sim: name must be a str such as 'cuMemAlloc', not {name!r}")
    if name in entry_points():
        return name
    close = difflib.get_close_matches(name, entry_points())
    hint = f"; close are {', '.join(close)}" if close else ""
    raise ValueError(f"the simulated driver has no entry point {name!r}{hint}")
