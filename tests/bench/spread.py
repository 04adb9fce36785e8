"""Several measurements of one thing, and what is said of them: median, quartiles, ratios."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

STEADY = 0.10
"""A floor whose quartiles lie further apart than this share of its median has moved."""


@dataclass(frozen=True)
class Spread:
    """The median of some measurements and the quartiles around it."""

    median: float
    lower: float
    upper: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum up `values`; quartiles by linear interpolation, as `numpy.quantile` does. Of one value all are that."""
        if not values:
            raise ValueError("no measurement to sum up")
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, lower, upper, len(values))

    @property
    def relative_width(self) -> float:
        """How far the quartiles lie apart, as a share of the median."""
        return (self.upper - self.lower) / self.median if self.median else 0.0

    @property
    def is_steady(self) -> bool:
        return self.relative_width <= STEADY


def ratio(values: Sequence[float], floor: Sequence[float]) -> float | None:
    """How many times the floor `values` are: the median over the rounds of both, round by round.

    Rounds that only one of them has do not count; None if there is none, or a floor is 0.
    """
    pairs = [value / base for value, base in zip(values, floor, strict=False) if base > 0]
    return statistics.median(pairs) if pairs else None
