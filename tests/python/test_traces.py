"""The default pool on recorded workloads: it completes with little more than the peak, and holds little more.

tests/traces/README.md says what was recorded. The largest needs a larger device than other tests, and so each trace is
replayed in a process of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cenote import trace
from cenote.logs.floor import page_floor

TRACES = Path(__file__).parents[1] / "traces"
MIB = 1024**2

pytestmark = pytest.mark.skipif(not TRACES.is_dir(), reason="the traces are in the repository, not in distributions")


class Recorded(NamedTuple):
    """A trace, what it needs at the least, and what the pool may need."""

    name: str
    peak_bytes: int
    floor_bytes: int
    goal: float  # a capacity, over the peak


RECORDED = (
    Recorded("gpt2_varlen", 17_767_415_048, 17_796_431_872, 1.005),
    Recorded("gpt2_generate", 574_953_984, 576_716_800, 1.006),
    Recorded("gnn", 8_014_843_968, 8_027_897_856, 1.005),
    Recorded("resnet_train_eval", 4_073_562_080, 4_081_057_792, 1.005),
    Recorded("multistream", 436_570_184, 444_596_224, 1.025),
    Recorded("moe", 8_666_732_200, 8_690_597_888, 1.009),
    Recorded("diffusion", 5_530_271_536, 5_542_772_736, 1.005),
    Recorded("speech", 4_800_638_728, 4_821_352_448, 1.008),
)
TAKES_SECONDS = {"resnet_train_eval", "gpt2_varlen", "gpt2_generate", "multistream", "moe", "diffusion", "speech"}

each_trace = pytest.mark.parametrize(
    "recorded",
    [pytest.param(r, id=r.name, marks=[pytest.mark.slow] * (r.name in TAKES_SECONDS)) for r in RECORDED],
)

REPLAYS = """
    import json
    from cenote import mr, trace
    from cenote.logs.replay import replay

    recorded = trace.read("FILE")
    most_held = {}
    for specification in SPECIFICATIONS:
        pool = mr.from_spec(specification, 0)
        held = []
        replay(recorded, pool, progress=lambda _: held.append(pool.pool_size()), progress_every=1)
        most_held[specification] = max(held)
        pool.check()
    print(json.dumps(most_held))
"""


def file_of(recorded: Recorded) -> Path:
    return TRACES / f"{recorded.name}.csv.gz"


def most_held(run_fresh: Callable[..., Any], recorded: Recorded, *specifications: str) -> dict[str, int]:
    """Replay a trace on resources that are made anew; the most bytes that each held. Fails if one runs out."""
    code = REPLAYS.replace("FILE", str(file_of(recorded))).replace("SPECIFICATIONS", repr(specifications))
    held: dict[str, int] = json.loads(run_fresh(code, CENOTE_SIM="memory=80GiB").stdout)
    return held


@each_trace
def test_workload_completes_with_the_goal_and_with_somewhat_more(
    recorded: Recorded, run_fresh: Callable[..., Any]
) -> None:
    limits = [int(recorded.peak_bytes * recorded.goal * share) for share in (1, 1.01, 1.02)]
    held = most_held(run_fresh, recorded, *(f"pool:max={limit}" for limit in limits))
    for limit in limits:
        assert recorded.peak_bytes <= held[f"pool:max={limit}"] <= limit


@each_trace
def test_without_a_maximum_little_more_than_the_peak_is_held(recorded: Recorded, run_fresh: Callable[..., Any]) -> None:
    (held,) = most_held(run_fresh, recorded, "pool").values()
    assert recorded.peak_bytes <= held <= max(1.12 * recorded.peak_bytes, recorded.peak_bytes + 256 * MIB)


@each_trace
def test_peak_and_floor_of_a_trace_are_those_of_its_row(recorded: Recorded) -> None:
    floor = page_floor(trace.read(file_of(recorded)))
    assert (floor.peak_bytes, floor.nbytes) == (recorded.peak_bytes, recorded.floor_bytes)
    assert 1 < floor.ratio < recorded.goal


def test_every_trace_has_a_goal_and_a_row_of_the_page() -> None:
    assert {file.name for file in TRACES.glob("*.gz")} == {file_of(recorded).name for recorded in RECORDED}
    rows = [line for line in (TRACES / "README.md").read_text().splitlines() if line.startswith("| `")]
    for row, recorded in zip(rows, RECORDED, strict=True):
        assert row.startswith(f"| `{recorded.name}` |")
        assert row.endswith(f"| {recorded.peak_bytes:,} | {recorded.floor_bytes:,} ({floor_ratio(recorded)}) |")


def floor_ratio(recorded: Recorded) -> str:
    return f"{recorded.floor_bytes / recorded.peak_bytes:.4f}"
