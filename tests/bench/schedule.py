"""In which order a round asks, another one each time, peers of one measurement side by side; and on which cores."""

from __future__ import annotations

import os
import random
from collections.abc import Hashable, Iterator, Sequence
from typing import TypeVar

SEED = 20261123

Cell = TypeVar("Cell")


def interleaved(groups: Sequence[Sequence[Cell]], rounds: int, seed: int = SEED) -> Iterator[tuple[int, Cell]]:
    """Go through all cells once a round; yields the round and the cell.

    A group holds the peers of one row. Groups come in another order each round, and so do the peers within one; those
    of one row are asked one right after the other, so that what else the machine does falls on all of them.
    """
    order = random.Random(seed)
    for done in range(rounds):
        for group in order.sample(groups, len(groups)):
            for cell in order.sample(group, len(group)):
                yield done, cell


class Cores:
    """The cores of the machine, dealt out: those of one measurement run on the same one, the next one elsewhere.

    Cores of one machine are not equally fast where others share it, and a process that wanders between them measures
    the machine instead of itself.
    """

    def __init__(self) -> None:
        self._all = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._asked: Hashable = None
        self._dealt = -1

    def of(self, measurement: Hashable, threads: int) -> list[int]:
        """One core for one thread, the same as long as the same measurement is asked for; else all of them."""
        if measurement != self._asked:
            self._asked = measurement
            self._dealt += 1
        return [self._all[self._dealt % len(self._all)]] if threads == 1 and self._all else self._all
