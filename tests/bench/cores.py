"""On which cores of the machine a measurement runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable

WORK = 10_000  # additions: 0.1 to 0.3 ms
TRIES = 3


def time_of_work(core: int) -> float:
    """Seconds that a little work takes on the core now; the calling thread stays there."""
    os.sched_setaffinity(0, {core})
    times = []
    for _ in range(TRIES):
        begin = time.perf_counter()
        sum(range(WORK))
        times.append(time.perf_counter() - begin)
    return min(times)


class Cores:
    """The cores of the machine: what one thread measures runs on the one that is the fastest just before.

    Where others share the machine, a core runs at half its speed while its other hardware thread is theirs, for seconds
    at a time; and a process that wanders between cores measures the machine instead of itself.

    Parameters
    ----------
    time_of_work : callable
        Seconds that the same work takes on a core.
    """

    def __init__(self, time_of_work: Callable[[int], float] = time_of_work) -> None:
        self._all = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._time_of_work = time_of_work
        self._asked: Hashable = None
        self._fastest: list[int] = []

    def of(self, measurement: Hashable, threads: int) -> list[int]:
        """One core for one thread, the same as long as the same measurement is asked for; else all of them."""
        if threads != 1 or not self._all:
            return self._all
        if measurement != self._asked:
            self._asked = measurement
            self._fastest = [min(self._all, key=self._time_of_work)]
            os.sched_setaffinity(0, self._all)
        return self._fastest
