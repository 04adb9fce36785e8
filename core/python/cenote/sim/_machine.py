"""The simulated machine: spelled as ``CENOTE_SIM`` has it, and put in the place of the one that there is."""

from __future__ import annotations

import ctypes
import operator
import os

from cenote._core import driver as core_driver
from cenote._core import logger, registry
from cenote._core.environment import is_secure_execution
from cenote.sim._library import is_simulated, load_library, named_driver


def spell_settings(
    devices: int,
    memory: str | int,
    driver: int | None,
    name: str | None,
    pageable: bool,
    peers: bool,
    virtual_memory: bool,
    mig: int,
    poison: bool,
) -> str:
    """Spell the arguments of `configure` as ``CENOTE_SIM`` has them; TypeError or ValueError for what cannot be."""
    settings = [
        f"devices={whole_number('devices', devices)}",
        f"memory={memory}" if isinstance(memory, str) else f"memory={whole_number('memory', memory)}B",
    ]
    if driver is not None:
        settings.append(f"driver={whole_number('driver', driver)}")
    if name is not None:
        if not isinstance(name, str):
            raise TypeError(f"cenote.sim.configure: name must be a str, not {name!r}")
        settings.append(f"name={name}")
    if _flag("pageable", pageable):
        settings.append("pageable=1")
    if not _flag("peers", peers):
        settings.append("peers=0")
    if not _flag("virtual_memory", virtual_memory):
        settings.append("virtual_memory=0")
    if whole_number("mig", mig) != 0:
        settings.append(f"mig={whole_number('mig', mig)}")
    if _flag("poison", poison):
        settings.append("poison=1")
    for setting in settings:
        key, _, value = setting.partition("=")
        for character, called in ((",", "a comma"), ("\0", "a null character")):
            if character in value:
                raise ValueError(f"cenote.sim.configure: {key}: {value!r} has {called} in it")
    return ",".join(settings)


def start(settings: str, function: str) -> None:
    """Have the machine of the settings take the place of the one that there is."""
    if is_secure_execution():
        raise RuntimeError(
            f"cenote.sim.{function}: this program has rights that its caller has not (set-user-id, or capabilities of "
            "its file), so that CENOTE_CUDA_DRIVER is not followed and no driver can be chosen: run it without them."
        )
    library = load_library()
    why = ctypes.create_string_buffer(512)
    if library.cenote_sim_check(settings.encode(), why, len(why)) != 0:
        raise ValueError(f"cenote.sim.{function}: {why.value.decode(errors='replace')}")
    if core_driver.is_loaded() and not core_driver.is_simulated():
        raise RuntimeError(
            f"cenote.sim.{function}: the CUDA driver '{core_driver.library()}' is already in use in this process. "
            "Call configure() before the first allocation or device query, or set CENOTE_CUDA_DRIVER=sim and "
            "CENOTE_SIM in the environment."
        )
    if library.cenote_sim_initialized():
        registry.reset_all_device_resources()
        if library.cenote_sim_reset(settings.encode(), why, len(why)) != 0:
            raise RuntimeError(f"cenote.sim.{function}: {why.value.decode()}")
    if not is_simulated(named_driver()):
        os.environ["CENOTE_CUDA_DRIVER"] = "sim"
    os.environ["CENOTE_SIM"] = settings
    core_driver.forget()
    logger.clear_reports()


def whole_number(name: str, value: object, function: str = "configure") -> int:
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
