"""``cenote replay`` on several resources side by side, and on threads that work at the same time."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from cenote import mr, replay, trace
from cenote.cli import main
from cenote.cli.comparison_chart import address_map
from cenote.logs.trace import Action

MIB = 1024**2


def made(events: list[tuple[int, Action, int, int]]) -> trace.Trace:
    """A trace of (thread, action, pointer, bytes)."""
    rows = [(thread, at, action, pointer, nbytes, 0) for at, (thread, action, pointer, nbytes) in enumerate(events)]
    return np.array(rows, dtype=trace.DTYPE)


def handed_on(threads: int, events: int, seed: int = 7) -> trace.Trace:
    """Threads that free what others have allocated."""
    choose = random.Random(seed)
    live: list[tuple[int, int]] = []
    recorded = []
    for pointer in range(1, events):
        thread = choose.randrange(threads)
        if live and choose.random() < 0.5:
            recorded.append((thread, Action.FREE, *live.pop(choose.randrange(len(live)))))
        else:
            live.append((pointer, choose.randrange(1, MIB)))
            recorded.append((thread, Action.ALLOCATE, *live[-1]))
    return made(recorded)


@pytest.mark.slow
def test_resources_are_shown_side_by_side_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["replay", str(trace.example()), "--simulate", "--resource", "pool", "--resource", "pool:max=64MiB"]
    assert main([*command, "--plot", str(tmp_path / "both.svg")]) == 1
    shown = capsys.readouterr().out
    assert "page floor" in shown
    assert "pool:max=64MiB: out of memory at event" in shown
    drawn = (tmp_path / "both.svg").read_text()
    assert drawn.count("addresses in use") == 2 or "<svg" in drawn
    assert main([*command, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    first, second = told["results"]
    assert (first["completed"], second["completed"]) == (True, False)
    assert first["held_bytes"] >= told["peak_bytes"] > 64 * MIB >= second["held_bytes"]
    assert first["driver_calls"] > 0


@pytest.mark.parametrize("specification", ["pool:max=1GiB", "cuda"])
def test_threads_at_once_make_all_events_of_the_trace(specification: str) -> None:
    recorded = handed_on(4, 4000)
    resource = mr.StatisticsResourceAdaptor(mr.from_spec(specification))
    done: list[int] = []
    at_once = replay.replay(recorded, resource, progress=done.append, at_once=True)
    in_turn = replay.replay(recorded, mr.from_spec(specification))
    assert at_once.__dict__ | {"seconds": 0} == in_turn.__dict__ | {"seconds": 0}
    assert done == sorted(done) and done[-1] == len(recorded)
    counts = resource.allocation_counts
    assert (counts.current_count, counts.total_count) == (0, at_once.allocations)


def test_threads_at_once_all_end_where_memory_runs_out() -> None:
    for _ in range(5):
        with pytest.raises(replay.ReplayOutOfMemoryError, match="out of memory at event"):
            replay.replay(handed_on(4, 4000), mr.from_spec("pool:max=8MiB"), at_once=True)


def test_wrong_trace_is_told_of_threads_at_once_as_elsewhere() -> None:
    twice = made([(1, Action.ALLOCATE, 5, 256), (2, Action.ALLOCATE, 5, 256)])
    with pytest.raises(ValueError, match="event 2 of 2: 0x5 is allocated again"):
        replay.replay(twice, mr.from_spec("pool"), at_once=True)


def test_map_has_the_addresses_that_are_in_use_and_no_others() -> None:
    allocate, free = Action.ALLOCATE, Action.FREE
    recorded = made([(1, allocate, 1, 4 * MIB), (1, allocate, 2, 4 * MIB), (1, free, 1, 4 * MIB), (1, free, 9, 1)])
    far = np.array([1 << 40, (1 << 40) + 4 * MIB + (1 << 36)], dtype=np.uint64)  # the gap is left out
    drawn, span = address_map(recorded, far)
    assert span == 8 * MIB
    assert drawn is not None
    rows, columns = drawn.shape
    low, high = drawn[: rows // 2], drawn[rows // 2 :]
    assert low[:, : columns // 2].all() and not low[:, columns // 2 + 2 :].any()
    assert not high[:, : columns // 4 - 1].any() and high[:, columns // 4 + 1 :].all()
    assert address_map(recorded, far[:0]) == (None, 0)
