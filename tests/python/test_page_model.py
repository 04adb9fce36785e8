"""The model of a pool over virtual memory: its figures on histories that one can work out by hand; its invariants."""

from __future__ import annotations

import gzip
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from tests.bench import page_model, synthetic_traces  # noqa: E402  found through the line above
from tests.bench.page_model import Model, Workload  # noqa: E402
from tests.bench.synthetic_traces import Tape  # noqa: E402

pytestmark = pytest.mark.build

MIB = 1 << 20
FLOOR = page_model.TABLES["floor"][0]
AT_ONCE = "bound=1 slack=0"  # a page is moved as soon as there is one
SEEDS = range(20261129, 20261135)

Replay = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page_model.build(tmp_path_factory.mktemp("page_model"))


@pytest.fixture
def replay(program: Path) -> Replay:
    """Replays a tape with a design and all checks; `capacity=True` finds the smallest limit instead."""

    def run(tape: Tape, design: str = "", capacity: bool = False) -> dict[str, Any]:
        with Model.of(program, Workload("tape", "tape", tape.rows())) as model:
            return model.measure(design) if capacity else model.replay(f"check=1 {design}")

    return run


def comb(*freed: int) -> Tape:
    """Four blocks of a page each, side by side, of which some are freed; then a block of two pages."""
    tape = Tape()
    blocks = [tape.allocate(2 * MIB) for _ in range(4)]
    tape.free(*[blocks[i] for i in freed])
    tape.allocate(4 * MIB)
    return tape


def hand_over() -> Tape:
    """A block that stream 1 has freed, and one of that size on stream 0."""
    tape = Tape()
    tape.free(tape.allocate(2 * MIB, stream=1), stream=1)
    tape.allocate(2 * MIB, stream=0)
    return tape


def test_blocks_share_pages(replay: Replay) -> None:
    tape = Tape()
    for size in (3 * MIB, MIB, 2 * MIB):
        tape.allocate(size)
    figures = replay(tape, FLOOR, capacity=True)
    assert figures["held"] == figures["touched"] == figures["peak_bytes"] == 6 * MIB
    assert 1 <= figures["capacity_ratio"] <= 1 + page_model.PRECISION


def test_missing_pages_are_made_while_the_bound_allows_it(replay: Replay) -> None:
    figures = replay(comb(0, 2))
    assert (figures["created"], figures["moves"], figures["held"]) == (6, 0, 12 * MIB)


def test_idle_pages_are_moved_under_a_block_above_the_bound(replay: Replay) -> None:
    figures = replay(comb(0, 2), AT_ONCE)
    assert (figures["created"], figures["moves"], figures["held"]) == (4, 2, 8 * MIB)


def test_idle_pages_are_moved_under_a_block_at_the_limit(replay: Replay) -> None:
    assert replay(comb(0, 2), f"limit={8 * MIB}")["moves"] == 2
    assert not replay(comb(0, 2), f"limit={8 * MIB - 1}")["completed"]
    assert not replay(comb(0), f"limit={8 * MIB}")["completed"]


def test_only_the_shortage_is_made_beyond_the_bound(replay: Replay) -> None:
    figures = replay(comb(1), AT_ONCE)
    assert (figures["created"], figures["moves"], figures["held"]) == (5, 1, 10 * MIB)


def test_place_that_lacks_fewest_pages_is_taken(replay: Replay) -> None:
    assert replay(comb(1, 3), AT_ONCE)["moves"] == 1  # block 3 lies beside unmapped addresses
    assert replay(comb(1, 2), AT_ONCE)["moves"] == 0


def test_pending_block_of_another_stream_is_used_after_a_wait(replay: Replay) -> None:
    assert replay(hand_over(), "ready_after=-1")["waits"] == 0, "there is memory to spare"
    figures = replay(hand_over(), f"ready_after=-1 limit={2 * MIB}")
    assert (figures["completed"], figures["waits"], figures["moves"]) == (True, 1, 0)
    assert replay(hand_over(), f"ready_after=0 limit={2 * MIB}")["waits"] == 0


def test_pages_change_hands_between_ranges(replay: Replay) -> None:
    figures = replay(hand_over(), f"one_range=0 ready_after=-1 limit={2 * MIB}")
    assert (figures["completed"], figures["waits"], figures["moves"]) == (True, 1, 1)


def test_large_idle_page_is_released_for_small_ones(replay: Replay) -> None:
    tape = Tape()
    tape.free(tape.allocate(16 << 30), tape.allocate(2 * MIB))
    kept = [tape.allocate(MIB) for _ in range(3)]
    tape.allocate((16 << 30) - 4 * MIB)
    tape.free(*kept)
    figures = replay(tape, f"limit={(16 << 30) + 2 * MIB} near=0.99")
    assert figures["completed"]
    assert figures["held"] <= (16 << 30) + 2 * MIB


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "design",
    [
        "",
        "fit=good ready_after=-1 slack=0 bound=1",
        "fit=best ready_after=8 cache=1 slack=0 victim=smallest",
        "fit=none upper=0 victim=largest slack=0 coalesce=0 ready_after=3",
        "one_range=0 ready_after=5 wait_first=0 victim=highest slack=0",
        f"page={8 * MIB} candidates=1 slack=0 bound=1.03",
    ],
)
def test_invariants_hold_on_random_histories(replay: Replay, design: str, seed: int) -> None:
    tape = random_history(seed, streams=3)
    free = replay(tape, design)
    assert free["completed"]
    assert free["held"] >= free["touched"]
    replay(tape, f"{design} limit={free['touched'] + 8 * MIB}")


@pytest.mark.parametrize("seed", SEEDS)
def test_capacity_stays_within_five_pages_of_the_floor(replay: Replay, seed: int) -> None:
    tape = random_history(seed, streams=1)
    floor = replay(tape, FLOOR)["held"]
    for design in (AT_ONCE, ""):
        figures = replay(tape, design, capacity=True)
        assert figures["capacity_ratio"] * figures["peak_bytes"] <= floor + 5 * 2 * MIB


def test_steady_loop_maps_nothing_after_its_first_steps(program: Path) -> None:
    rows = synthetic_traces.training(1, layers=4, width=512, vocabulary=8000, steps=8, is_steady=True)
    with Model.of(program, Workload("steady", "steady", rows)) as model:
        for design in ("", "bound=1.03", "cache=1"):
            figures = model.replay(design)
            assert (figures["late_mapping"], figures["late_moves"]) == (0, 0), design


def random_history(seed: int, streams: int) -> Tape:
    draw, tape = random.Random(seed), Tape()
    live: list[tuple[int, int]] = []
    for _ in range(400):
        if len(live) < 12 or draw.random() < 0.5:
            stream = draw.randrange(streams)
            live.append((tape.allocate(2 ** draw.uniform(8, 25), stream), stream))
        if len(live) > 30 or draw.random() < 0.3:
            block, stream = live.pop(draw.randrange(len(live)))
            tape.free(block, stream=stream if draw.random() < 0.9 else draw.randrange(streams))
    return tape


def test_trace_is_read_as_workload(tmp_path: Path) -> None:
    path = tmp_path / "small.csv.gz"
    lines = [
        "Thread,Time,Action,Pointer,Size,Stream",
        "1,00:00:00:000001,allocate,0x100,1024,0x10",
        "1,00:00:00:000002,allocate,0x500,0,0x10",
        "1,00:00:00.000003,allocate failure,(nil),1,0x10",
        "1,00:00:01:000001,free,0x900,64,0x10",
        "1,00:00:01:000001,free,0x100,1024,0x20",
        "1,00:00:02:000001,allocate,0x100,512,0x20",
    ]
    path.write_bytes(gzip.compress("\n".join(lines).encode() + b"\n"))
    workload = page_model.read(path)
    assert workload.rows.tolist() == [[0, 1024, 0], [0, -1, 1], [1, 512, 1]]
    assert (workload.name, workload.seconds, workload.peak) == ("small", 2.0, 1024)


def test_model_says_what_is_no_design(program: Path) -> None:
    for design, text in (("colour=1", "no colour"), ("page=x", "not a value of page")):
        with Model.of(program, Workload("one", "one", comb().rows())) as model, pytest.raises(ValueError, match=text):
            model.replay(design)
