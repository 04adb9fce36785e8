"""The measurement of one resource: what it holds of a trace without a limit, and how little it gets by with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cenote import driver, mr, sim
from cenote.cli.limited_resource import LimitedResource, Way
from cenote.cli.simulated_machine import LARGEST_BYTES
from cenote.cli.smallest_capacity import Capacity, expected_attempts, smallest_capacity
from cenote.cli.terminal import Terminal
from cenote.logs.floor import PageFloor
from cenote.logs.replay import ReplayResult, replay
from cenote.logs.trace import Trace
from cenote.units import format_bytes

_PROGRESS_EVERY = 256
"""Events between two moves of the bar."""


@dataclass
class Measurement:
    """What was found of one resource.

    Attributes
    ----------
    resource : str
        Its specification, as the user wrote it.
    way : Way
        What limits its memory.
    completed : bool
        Whether the trace completes on it.
    capacity_bytes, held_bytes : int or None
        The smallest limit with which it does, and the most that it held without one.
    driver_calls : dict of str to int, or None
        How often each function of the driver was called without a limit, from the making of the resource on; None on a
        real device, where nobody counts.
    played : ReplayResult or None
        What the replay without a limit did.
    remarks : list of str
        What a reader of the figures must know.
    """

    resource: str
    way: Way
    completed: bool = False
    capacity_bytes: int | None = None
    held_bytes: int | None = None
    driver_calls: dict[str, int] | None = None
    played: ReplayResult | None = None
    remarks: list[str] = field(default_factory=list)


def measure(limited: LimitedResource, recorded: Trace, floor: PageFloor, terminal: Terminal) -> Measurement:
    """Measure a resource.

    Parameters
    ----------
    limited : LimitedResource
        What makes it.
    recorded : Trace
        Shape ``(events,)``.
    floor : PageFloor
        Of the trace; something is live in it.
    terminal : Terminal
        Where bars show how far it is.

    Returns
    -------
    Measurement
    """
    found = Measurement(limited.specification, limited.way)
    name = limited.specification if len(limited.specification) <= 40 else f"{limited.specification[:37]}..."
    with terminal.progress(f"{name}, without a limit", 2 * len(recorded)) as show:
        bar = _Bar(show, len(recorded), 2)
        found.played = _replay_without_limit(limited, recorded, bar, found)
        if found.played is None:
            return found
        found.completed = True
        found.held_bytes = held = _most_held(limited, recorded, bar)
    if held < floor.peak_bytes:
        found.remarks.append("It takes less than the live bytes from the device, so that there is no smallest device.")
        return found
    attempts = expected_attempts(floor.peak_bytes, held)
    with terminal.progress(f"{name}, with less and less", attempts * len(recorded)) as show:
        bar = _Bar(show, len(recorded), attempts)

        def completes(limit: int) -> bool:
            return _completes(limited, limit, recorded, bar)

        capacity = smallest_capacity(completes, floor.peak_bytes, held, limited.most_bytes)
        bar.fill()
    if capacity is None:
        found.completed = False
        found.remarks.append(
            f"The trace completes where nothing is limited, but with no limit up to {format_bytes(limited.most_bytes)}."
        )
        return found
    found.capacity_bytes = capacity.nbytes
    if capacity.by_luck:
        found.remarks.append(_about_luck(capacity, floor))
    return found


class _Bar:
    """The bar of several replays of one trace; each may end early."""

    def __init__(self, show: Callable[[int], None], events: int, replays: int) -> None:
        self._show = show
        self._events = events
        self._total = events * replays
        self._begun = 0

    def next(self) -> Callable[[int], None]:
        """Give the function that the next replay tells how many events are done."""
        begin = self._begun * self._events
        self._begun += 1
        return lambda done: self._show(min(begin + done, self._total))

    def fill(self) -> None:
        self._show(self._total)


def _replay(recorded: Trace, resource: Any, show: Callable[[int], None]) -> ReplayResult:
    """Replay so that each event finds the work before it done, as it mostly is on a device, where no kernels run."""
    if driver.is_simulated():
        resource = _FinishingResource(resource)
    return replay(recorded, resource, progress=show, progress_every=_PROGRESS_EVERY)


class _FinishingResource:
    """A resource on the simulated device, which else lets work wait until somebody waits for it."""

    def __init__(self, resource: Any) -> None:
        self._resource = resource
        self.device = resource.device

    def allocate(self, nbytes: int, stream: Any) -> int:
        sim.drain()
        address: int = self._resource.allocate(nbytes, stream)
        return address

    def deallocate(self, ptr: int, nbytes: int, stream: Any) -> None:
        sim.drain()
        self._resource.deallocate(ptr, nbytes, stream)


def _replay_without_limit(
    limited: LimitedResource, recorded: Trace, bar: _Bar, found: Measurement
) -> ReplayResult | None:
    """Replay on the device as it is, or on the largest that there can be where that one is too small."""
    try:
        resource = limited.make()
        played = _replay(recorded, resource, bar.next())
    except MemoryError as error:
        if not limited.take_the_largest_device():
            found.remarks.append(_about_failure(error))
            return None
    except (RuntimeError, ValueError) as error:
        found.remarks.append(f"It cannot be used on this device: {error}")
        return None
    else:
        found.driver_calls = sim.calls() if driver.is_simulated() else None
        return played
    return _replay_without_limit(limited, recorded, bar, found)


def _most_held(limited: LimitedResource, recorded: Trace, bar: _Bar) -> int:
    watched = _WatchedResource(limited)
    _replay(recorded, watched, bar.next())
    bar.fill()
    return watched.most_bytes


class _WatchedResource:
    """A resource without a limit that is asked after each allocation, which alone adds to it, what it holds."""

    def __init__(self, limited: LimitedResource) -> None:
        self._limited = limited
        self._resource = limited.make()
        self.device = self._resource.device
        self.most_bytes = limited.held_by(self._resource)

    def allocate(self, nbytes: int, stream: Any) -> int:
        address = self._resource.allocate(nbytes, stream)
        self.most_bytes = max(self.most_bytes, self._limited.held_by(self._resource))
        return address

    def deallocate(self, ptr: int, nbytes: int, stream: Any) -> None:
        self._resource.deallocate(ptr, nbytes, stream)


def _completes(limited: LimitedResource, limit: int, recorded: Trace, bar: _Bar) -> bool:
    progress = bar.next()
    try:
        resource: mr.DeviceMemoryResource = limited.make(limit)
    except (MemoryError, RuntimeError):  # one that takes memory at the start, or refuses to be so small
        return False
    try:
        _replay(recorded, resource, progress)
    except MemoryError:
        return False
    return True


def _about_failure(error: MemoryError) -> str:
    if driver.is_simulated():
        return f"The trace completes on no device, not even on one of {format_bytes(LARGEST_BYTES)}: {error}"
    return f"The trace does not complete on this device; --simulate takes a larger one: {error}"


def _about_luck(capacity: Capacity, floor: PageFloor) -> str:
    lucky = ", ".join(
        f"{enough / floor.peak_bytes:.4f} ({fails / floor.peak_bytes:.4f} fails)" for enough, fails in capacity.by_luck
    )
    return (
        f"Smaller capacities are enough by luck, as somewhat larger ones are not: {lucky} of the peak. The one that is "
        "given is enough with 1.01 and 1.02 times its size, too."
    )
