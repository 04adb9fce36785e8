"""In which order a round asks: another one each time, peers of one measurement side by side."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
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
