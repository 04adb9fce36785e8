"""The page floor of traces: against a slow model, and of the trace that comes with cenote."""

from __future__ import annotations

import random

import numpy as np
import pytest

from cenote import trace
from cenote.logs.floor import PageFloor, page_floor
from cenote.logs.trace import DTYPE, Action

MIB = 1024**2
PAGE = 4096

Event = tuple[Action, int, int]


def events(*rows: Event) -> trace.Trace:
    """A trace from (action, pointer, bytes)."""
    return np.array([(1, at, *row, 0) for at, row in enumerate(rows)], dtype=DTYPE)


def history(seed: int, count: int) -> list[Event]:
    """Allocations of few sizes, so that there are ties, and frees in random order."""
    draw = random.Random(seed)
    rows: list[Event] = []
    live: list[int] = []
    for pointer in range(1, count):
        while live and draw.random() < 0.48:
            rows.append((Action.FREE, live.pop(draw.randrange(len(live))), 1))
        live.append(pointer)
        rows.append((Action.ALLOCATE, pointer, draw.choice((1, 256, 257, 5000, 5000, 40_000, draw.randrange(1, 9000)))))
    return rows


def slow_floor(rows: list[Event]) -> int:
    """The same by looking at all of it after each event; pages."""
    blocks: dict[int, tuple[int, int]] = {}
    end = most = 0
    for action, pointer, nbytes in rows:
        if action == Action.FREE:
            del blocks[pointer]
            continue
        size = -(-nbytes // 256) * 256
        holes, at = [], 0
        for begin, behind in sorted(blocks.values()):
            holes.append((begin - at, at))
            at = behind
        tail = (end - at, at)
        fitting = [hole for hole in (*holes, tail) if hole[0] >= size]
        at = min(fitting)[1] if fitting else tail[1]
        end = max(end, at + size)
        blocks[pointer] = (at, at + size)
        touched = {page for begin, behind in blocks.values() for page in range(begin // PAGE, -(-behind // PAGE))}
        most = max(most, len(touched))
    return most


@pytest.mark.parametrize("seed", range(20))
def test_floor_is_that_of_the_slow_model(seed: int) -> None:
    rows = history(seed, 150)
    floor = page_floor(events(*rows), PAGE)
    assert floor.pages == slow_floor(rows)
    assert floor.nbytes == floor.pages * PAGE
    assert floor.ratio == floor.nbytes / floor.peak_bytes


def test_floor_of_the_example_is_the_measured_one() -> None:
    recorded = trace.read(trace.example())
    floor = page_floor(recorded)
    assert floor == PageFloor(peak_bytes=8_014_843_968, pages=3828, page_bytes=2 * MIB)
    assert [round(page_floor(recorded, MIB * page).ratio, 4) for page in (2, 8, 32)] == [1.0016, 1.0048, 1.0131]


def test_peak_is_of_bytes_as_requested_and_pages_are_whole() -> None:
    floor = page_floor(events((Action.ALLOCATE, 1, 1), (Action.ALLOCATE, 2, 3), (Action.FREE, 1, 1)), PAGE)
    assert floor == PageFloor(peak_bytes=4, pages=1, page_bytes=PAGE)


def test_failures_unknown_frees_and_empty_blocks_do_not_count() -> None:
    rows = [(Action.FAILURE, 0, 2**60), (Action.FREE, 5, 256), (Action.ALLOCATE, 0, 0), (Action.ALLOCATE, 0, 0)]
    assert page_floor(events(*rows)) == PageFloor(0, 0, 2 * MIB)
    assert page_floor(events(*rows)).ratio == 1


def test_address_that_is_allocated_twice_is_a_wrong_trace() -> None:
    with pytest.raises(ValueError, match=r"event 2 of 2: 0x9 is allocated again"):
        page_floor(events((Action.ALLOCATE, 9, 256), (Action.ALLOCATE, 9, 256)))
