"""The environment variables that are set for cenote, and what is wrong with them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cenote._core.environment import is_secure_execution
from cenote._core.specification import check_specification
from cenote.logger import level_enum
from cenote.units import parse_bytes

__all__ = ["Variable", "variables"]


@dataclass(frozen=True)
class Variable:
    """A variable that is set.

    Attributes
    ----------
    name, value : str
        As the environment has them.
    error : str or None
        What is wrong with it.
    """

    name: str
    value: str
    error: str | None


def variables(driver_error: str | None) -> list[Variable]:
    """List the variables that are set for cenote, by name, those of RMM's that it follows too.

    An empty one counts as not set. In secure execution (a set-user-id program) each is wrong, as none is followed.

    Parameters
    ----------
    driver_error : str or None
        What the driver said, if it cannot be used: one of two variables may be the cause.
    """
    ours = {name for name in os.environ if name.startswith("CENOTE_") and not name.startswith("CENOTE_TEST_")}
    names = sorted(ours | {name for name in _CHECKS if name in os.environ})
    return [Variable(name, os.environ[name], _error(name, driver_error)) for name in names if os.environ[name]]


def _error(name: str, driver_error: str | None) -> str | None:
    if name not in _CHECKS:
        close = difflib.get_close_matches(name, [each for each in _CHECKS if each.startswith("CENOTE_")], 1)
        return "cenote has no such variable" + (f": is {close[0]} meant?" if close else "")
    if is_secure_execution():
        return "it is not followed, as this program has rights that its caller has not"
    if name in _OF_THE_DRIVER:
        return driver_error if driver_error is not None and _OF_THE_DRIVER[name] in driver_error else None
    try:
        _CHECKS[name](os.environ[name])
    except ValueError as error:
        return str(error)
    return None


def _check_level(value: str) -> None:
    levels = [level.name for level in level_enum if level is not level_enum.n_levels]
    if value.lower() not in levels:
        raise ValueError(f"it must be one of {', '.join(levels)}")


def _check_budget(value: str) -> None:
    share = value.removesuffix("%")
    if share == value:
        parse_bytes(value)
    elif not 0 <= float(share) <= 100:
        raise ValueError(f"'{value}' is no share for a budget: it is from 0% to 100%")


def _check_file(value: str) -> None:
    if not Path(value).parent.is_dir():
        raise ValueError(f"there is no folder '{Path(value).parent}'")
    if Path(value).is_dir():
        raise ValueError("it is a folder, not a file")
    if not os.access(value if os.path.exists(value) else Path(value).parent, os.W_OK):
        raise ValueError("it may not be written")


def _check_switch(value: str) -> None:
    if value not in ("0", "1"):
        raise ValueError("it must be 1 or 0")


def _check_recorder(value: str) -> None:
    if value in ("off", "0"):
        return
    if not 256 * 1024 <= parse_bytes(value) <= 64 * 1024**3:
        raise ValueError("it must be a size from 256KiB to 64GiB, or off")


def _check_counters(value: str) -> None:
    if value == "off":
        return
    folder = Path(value)
    if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise ValueError("it must be a folder that may be written to, or off")
    if not folder.parent.is_dir():
        raise ValueError("its folder does not exist")


def _check_promise(value: str) -> None:
    if value != "announced":
        raise ValueError("the one word it knows is announced")


def _left_to_the_driver(value: str) -> None:
    """Accept it here, as the driver's error says what is wrong with it."""


_CHECKS: dict[str, Callable[[str], None]] = {
    "CENOTE_AS_RMM": _check_switch,
    "CENOTE_BUDGET": _check_budget,
    "CENOTE_CAPTURES": _check_promise,
    "CENOTE_COUNTERS": _check_counters,
    "CENOTE_CUDA_DRIVER": _left_to_the_driver,
    "CENOTE_DEBUG_LOG_FILE": _check_file,
    "CENOTE_LOG_FILE": _check_file,
    "CENOTE_LOG_LEVEL": _check_level,
    "CENOTE_NVTX": _check_switch,
    "CENOTE_RECORDER": _check_recorder,
    "CENOTE_RECORDER_FILE": _check_file,
    "CENOTE_RESOURCE": check_specification,
    "CENOTE_SIM": _left_to_the_driver,
    "RMM_DEBUG_LOG_FILE": _check_file,
    "RMM_LOG_FILE": _check_file,
}

# What the driver's error says where a variable is its cause.
_OF_THE_DRIVER = {"CENOTE_CUDA_DRIVER": "CENOTE_CUDA_DRIVER is '", "CENOTE_SIM": "CENOTE_SIM: "}
