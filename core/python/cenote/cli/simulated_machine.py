"""The simulated machine of a command, whose devices are made anew in any size."""

from __future__ import annotations

import os

from cenote import driver, sim

SETTINGS_VARIABLE = "CENOTE_SIM"

LARGEST_BYTES = 4 * 1024**4
"""The largest device that can be simulated."""

STEP_BYTES = 512
"""What a device is charged for is a multiple of this."""


class SimulatedMachine:
    """The devices of ``CENOTE_SIM``, in the size that is asked for until the end of the ``with`` block.

    Whatever is allocated when a size is asked for is gone then.

    Attributes
    ----------
    device_bytes : int
        Memory of each device as it was at the beginning.
    """

    def __init__(self) -> None:
        self._settings = os.environ.get(SETTINGS_VARIABLE)
        self.device_bytes = driver.memory_info(0)[1]

    def __enter__(self) -> SimulatedMachine:
        return self

    def __exit__(self, *_: object) -> None:
        self._start(self._settings)

    def resize(self, nbytes: int) -> None:
        """Make the devices anew, of so many bytes each. The counts of driver calls begin when the driver is loaded."""
        kept = [each for each in (self._settings or "").split(",") if each and _key(each) != "memory"]
        parts = next((int(each.partition("=")[2]) for each in kept if _key(each) == "mig"), 0)  # of equal memory
        self._start(",".join([*kept, f"memory={nbytes * max(parts, 1)}B"]))
        driver.device_count()
        sim.reset_calls()

    def _start(self, settings: str | None) -> None:
        if settings is None:
            os.environ.pop(SETTINGS_VARIABLE, None)
        else:
            os.environ[SETTINGS_VARIABLE] = settings
        sim.reset()


def _key(setting: str) -> str:
    return setting.partition("=")[0].strip()
