"""The search for the smallest capacity with which something completes: by bisection, and a look at what lies above.

A capacity that completes says little if a larger one does not: a placement can fit by luck. So the one that is found
must complete at 1.01 and 1.02 times its size as well. Where it does not, the search goes on above.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from cenote.cli.simulated_machine import STEP_BYTES

_PRECISION = 1000
"""One part in so many: 0.1 %."""

_MARGINS = (1.01, 1.02)


@dataclass(frozen=True)
class Capacity:
    """What was found.

    Attributes
    ----------
    nbytes : int
        The smallest capacity that completes, and completes with somewhat more as well; a multiple of 512.
    by_luck : tuple of (int, int)
        Smaller capacities that complete, each with a larger one, of 1.01 or 1.02 times its size, that does not.
    """

    nbytes: int
    by_luck: tuple[tuple[int, int], ...] = ()


def expected_attempts(low: int, high: int) -> int:
    """Tell how many attempts a search takes as a rule."""
    return 2 + math.ceil(math.log2(max(1, (high - low) * _PRECISION / max(low, 1)))) + len(_MARGINS)


def smallest_capacity(completes: Callable[[int], bool], low: int, high: int, most: int) -> Capacity | None:
    """Find the smallest capacity, to 0.1 %.

    Parameters
    ----------
    completes : callable
        Makes an attempt with a capacity in bytes, and tells whether it completes. No capacity is tried twice.
    low : int
        What is needed in any case, in bytes.
    high : int
        What suffices most likely.
    most : int
        The largest capacity to try.

    Returns
    -------
    Capacity or None
        None if nothing up to `most` completes.
    """
    search = _Search(completes, most)
    low = search.rounded(low)
    end = search.first_that_completes(max(low, high))
    if end is not None and search.completes(low):
        end = low
    by_luck: list[tuple[int, int]] = []
    while end is not None:
        found = search.bisect(low, end)
        failing = search.failing_above(found)
        if failing is None:
            return Capacity(found, tuple(by_luck))
        by_luck.append((found, failing))
        low = failing
        end = search.first_that_completes(search.known_above(low) or 2 * low)
    return None


class _Search:
    """What was tried, and how it went."""

    def __init__(self, completes: Callable[[int], bool], most: int) -> None:
        self._attempt = completes
        self._most = most
        self._outcomes: dict[int, bool] = {}

    def rounded(self, capacity: float) -> int:
        """Round a capacity up to what is tried: a multiple of what a device is charged for."""
        return min(-(-math.ceil(capacity) // STEP_BYTES) * STEP_BYTES, self._most)

    def completes(self, capacity: int) -> bool:
        if capacity not in self._outcomes:
            self._outcomes[capacity] = self._attempt(capacity)
        return self._outcomes[capacity]

    def first_that_completes(self, capacity: int) -> int | None:
        """Double a capacity until it completes."""
        capacity = self.rounded(capacity)
        while not self.completes(capacity):
            if capacity == self._most:
                return None
            capacity = self.rounded(2 * capacity)
        return capacity

    def bisect(self, low: int, high: int) -> int:
        """Halve the way between one that fails and one that completes until it is short."""
        while high - low > max(low // _PRECISION, STEP_BYTES):
            middle = self.rounded((low + high) / 2)
            if self.completes(middle):
                high = middle
            else:
                low = middle
        return high

    def failing_above(self, capacity: int) -> int | None:
        """Give one of the larger capacities that must complete as well, and does not."""
        larger = (self.rounded(margin * capacity) for margin in _MARGINS)
        return next((each for each in larger if not self.completes(each)), None)

    def known_above(self, low: int) -> int | None:
        """Give the smallest larger capacity that is known to complete."""
        return min((each for each, good in self._outcomes.items() if good and each > low), default=None)
