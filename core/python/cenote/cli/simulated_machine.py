"""The simulated machine of a command, whose devices are made anew in any size."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from cenote import driver, sim
from cenote.sim._library import load_library
from cenote.stream import Stream

_RELAXED = 2
"""The mode of a capture that forbids no call."""

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


def begin_capture(stream: Stream) -> None:
    """Have a stream captured into a graph, beside which other streams may do anything."""
    _call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream.handle), _RELAXED)


def end_capture(stream: Stream) -> None:
    """Take the graph of a captured stream, and drop it."""
    graph = ctypes.c_void_p()
    _call("cuStreamEndCapture", ctypes.c_void_p(stream.handle), ctypes.byref(graph))
    if graph.value is not None:
        _call("cuGraphDestroy", graph)


def _call(name: str, *arguments: Any) -> None:
    code = getattr(load_library(), name)(*arguments)
    if code != 0:
        raise RuntimeError(f"the simulated driver refuses {name}: error {code}")
