"""The device that a command works on: a real one if there is one, else the simulated one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

from cenote import driver
from cenote.cli.terminal import Terminal
from cenote.units import format_bytes

DRIVER_VARIABLE = "CENOTE_CUDA_DRIVER"

_PROBE = """
import sys
import cenote
try:
    count = cenote.driver.device_count()
except cenote.CudaError as error:
    sys.exit(f"cenote: {error}")
if count == 0:
    sys.exit("cenote: the CUDA driver sees no device")
"""
_PROBE_SECONDS = 30


@dataclass(frozen=True)
class Device:
    """A device that is there.

    Attributes
    ----------
    index : int
        Its number.
    name : str
        As the driver says.
    total_bytes : int
        Its memory.
    why_simulated : str or None
        The reason, if it is not a real one.
    driver_error : str or None
        What the driver said, if it was tried and cannot be used.
    """

    index: int
    name: str
    total_bytes: int
    why_simulated: str | None
    driver_error: str | None

    def announce(self, terminal: Terminal) -> None:
        """Say which device it is; if it is simulated, that comes first."""
        if self.why_simulated:
            terminal.line(f"The device is simulated: {self.why_simulated}.", "bold yellow")
        if self.driver_error:
            terminal.line(self.driver_error, "dim")
        terminal.line(f"Device {self.index}: {self.name}, {format_bytes(self.total_bytes)}", "bold")


def choose_device(index: int, simulate: bool) -> Device:
    """Choose the driver for this process, at its first use, and a device of it.

    Parameters
    ----------
    index : int
        The number of the device.
    simulate : bool
        Take the simulated device even where there is a real one.

    Returns
    -------
    Device

    Raises
    ------
    ValueError
        If there is no such device.
    """
    why = error = None
    if simulate:
        why = "--simulate asks for it"
    elif not driver.is_loaded() and (error := why_no_device()) is not None:
        why = "there is no GPU that CUDA can use"
    if why is not None and not driver.is_loaded():
        os.environ[DRIVER_VARIABLE] = "sim"
    count = driver.device_count()
    simulated = driver.is_simulated()
    if not 0 <= index < count:
        more = f"; CENOTE_SIM=devices={index + 1} simulates more" if simulated and index > 0 else ""
        raise ValueError(f"there is no device {index}: there {'is' if count == 1 else 'are'} {count}{more}")
    if simulate and not simulated:
        raise ValueError("the real driver is in use by this process already: it cannot simulate a device any more")
    if simulated and why is None:
        why = f"{DRIVER_VARIABLE} asks for it"
    return Device(index, driver.device_name(index), driver.memory_info(index)[1], why, error)


def why_no_device() -> str | None:
    """Say why no device can be used, or None if one can.

    Another process tries: a process that failed to load its driver cannot load another one.
    """
    try:
        probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return f"the CUDA driver did not answer within {_PROBE_SECONDS} seconds"
    if probe.returncode == 0:
        return None
    said = probe.stderr.strip().splitlines()
    reason = next((line.removeprefix("cenote: ") for line in said if line.startswith("cenote: ")), None)
    return reason or f"the CUDA driver failed ({said[-1] if said else f'exit status {probe.returncode}'})"
