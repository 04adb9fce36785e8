"""What the pool engine is to reach, as ratios within one run, and whether a run did."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench.session import Cell, select
from tests.bench.spread import ratio

POOL = "cenote-pool"
ANNOUNCED = "cenote-announced"


class Measured:
    """The cells of a run, asked by case, words of the row, and peer."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._cells = cells

    def cell(self, case: str, row: str, peer: str = POOL) -> Cell | None:
        return select(self._cells, lambda c: c.case.name == case and c.row.label.startswith(row) and c.peer == peer)

    def median(self, case: str, row: str, peer: str = POOL) -> float | None:
        found = self.cell(case, row, peer)
        return found.spread.median if found and found.spread else None

    def figure(self, case: str, row: str, name: str, peer: str = POOL) -> float | None:
        found = self.cell(case, row, peer)
        return statistics.median(found.figures[name]) if found and found.figures.get(name) else None

    def over(self, one: tuple[str, str, str], other: tuple[str, str, str]) -> float | None:
        """The ratio of two cells, each named by case, row and peer: round by round where both are of one section."""
        a, b = self.cell(*one), self.cell(*other)
        if a is None or b is None:
            return None
        if a.case.section != b.case.section:
            return a.spread.median / b.spread.median if a.spread and b.spread else None
        pairs = [(x, y) for x, y in zip(a.values, b.values, strict=False) if x is not None and y is not None]
        return ratio([x for x, _ in pairs], [y for _, y in pairs])


@dataclass(frozen=True)
class Goal:
    """One line of the table: at most `limit`, or at least where `least` is set."""

    what: str
    limit: float
    unit: str
    value: Callable[[Measured], float | None]
    least: bool = False

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.least else value <= self.limit


def _foreign(peer: str) -> Callable[[Measured], float | None]:
    """A pair on a foreign stream, over one on the legacy stream and 1.2 stream ids."""

    def ratio_of(m: Measured) -> float | None:
        pair, base = m.median("pair", "4 KiB, a foreign", peer), m.median("pair", "4 KiB, legacy", peer)
        stream_id = m.median("floor", "cuStreamGetId", "machine")
        return pair / (base + 1.2 * stream_id) if pair and base and stream_id else None

    return ratio_of


def _pair(row: str, peer: str = POOL) -> Callable[[Measured], float | None]:
    return lambda m: m.over(("pair", row, peer), ("pair", row, "mimalloc"))


def _against(case: str, row: str, own: str) -> Callable[[Measured], float | None]:
    return lambda m: m.over((case, row, POOL), (case, row, own))


def _more_than_the_pool(adaptor: str) -> Callable[[Measured], float | None]:
    """What a pair takes more: measured in turn with the pool's, every tenth of a millisecond."""
    return lambda m: m.figure("adaptors", "1 thread", "more than the pool, ns", adaptor)


GOALS = (
    Goal("pair of 4 KiB, legacy default stream, over mimalloc's", 3, "×", _pair("4 KiB, legacy")),
    Goal("pair of 4 KiB, a stream of ours, over mimalloc's", 3, "×", _pair("4 KiB, a stream")),
    Goal("the same, captures announced", 3, "×", _pair("4 KiB, a stream", ANNOUNCED)),
    Goal("pair of 4 KiB, a foreign stream, over the legacy default one's + 1.2 stream ids", 1, "×", _foreign(POOL)),
    Goal("the same, captures announced", 1, "×", _foreign(ANNOUNCED)),
    Goal("100,000 blocks with holes", 150, "ns", lambda m: m.median("holes", "100,000")),
    Goal("the same, captures announced", 150, "ns", lambda m: m.median("holes", "100,000", ANNOUNCED)),
    Goal(
        "100,000 blocks with holes, over 1,000",
        2,
        "×",
        lambda m: m.over(("holes", "100,000", POOL), ("holes", "1,000", POOL)),
    ),
    Goal(
        "1,000,000 small live blocks, over 1,000",
        4,
        "×",
        lambda m: m.over(("live-small", "1,000,000", POOL), ("live-small", "1,000 ", POOL)),
    ),
    Goal(
        "host memory of 1,000,000 live blocks, each",
        64,
        "B",
        lambda m: m.figure("live-small", "1,000,000", "host bytes a block"),
    ),
    Goal(
        "16 threads, a stream each, over one thread",
        1.5,
        "×",
        lambda m: m.over(("threads", "16 threads, a", POOL), ("threads", "1 thread, a", POOL)),
    ),
    Goal(
        "16 threads on one stream, pairs a second",
        20,
        "million",
        lambda m: m.figure("threads", "16 threads, one", "million a second"),
        least=True,
    ),
    Goal("statistics over pool, a pair more than the pool's", 10, "ns", _more_than_the_pool("cenote-statistics")),
    Goal("limiting over pool, a pair more than the pool's", 10, "ns", _more_than_the_pool("cenote-limiting")),
    Goal("event records a replacement, 1,000 live", 1 / 32, "", lambda m: m.figure("live", "1,000 ", "events")),
    Goal("waits a replacement, 1,000 live", 0, "", lambda m: m.figure("live", "1,000 ", "waits")),
    Goal(
        "free on one stream, allocate on another, over record + wait",
        1.3,
        "×",
        lambda m: m.over(("handoff", "", POOL), ("handoff", "", "driver")),
    ),
    Goal(
        "the same, captures announced",
        1.3,
        "×",
        lambda m: m.over(("handoff", "", ANNOUNCED), ("handoff", "", "driver")),
    ),
    Goal("allocate + deallocate from Python", 300, "ns", lambda m: m.median("py-pair", "")),
    Goal("DeviceBuffer(size=1024)", 450, "ns", lambda m: m.median("py-buffer", "")),
    Goal("cupy.cuda.alloc of 1 KiB, over CuPy's pool", 1, "×", _against("cupy-alloc", "1 KiB", "cupy-pool")),
    Goal("torch.empty of 1 KiB, over torch's own", 1, "×", _against("torch-empty", "1 KiB", "torch")),
    Goal("numba.cuda.device_array of 1 KiB, over RMM's pool", 1, "×", _against("numba-array", "1 KiB", "rmm-pool")),
)
