"""The smallest capacity of a trace: the search, the two ways to limit a resource, and the command as its users meet it.

What changes the simulated machine runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cenote import trace
from cenote.cli.smallest_capacity import Capacity, expected_attempts, smallest_capacity

MIB = 1024**2
MOST = 4 * 1024**4
KEYS = {"trace", "peak_bytes", "floor", "results"}
KEYS_OF_RESULT = {"resource", "capacity_bytes", "capacity_ratio", "held_ratio", "completed", "driver_calls", "seconds"}
HEADER = "Thread,Time,Action,Pointer,Size,Stream\n"


class Attempts:
    """Capacities that complete, and those that were tried."""

    def __init__(self, completes: Callable[[int], bool]) -> None:
        self._completes = completes
        self.tried: list[int] = []

    def __call__(self, capacity: int) -> bool:
        assert capacity not in self.tried, "no capacity is tried twice"
        self.tried.append(capacity)
        return self._completes(capacity)


@pytest.mark.parametrize("needed", [100 * MIB, 100 * MIB + 1, 101 * MIB, 137 * MIB + 12_345, 199 * MIB, 200 * MIB])
def test_search_finds_the_smallest_to_a_thousandth(needed: int) -> None:
    attempts = Attempts(lambda capacity: capacity >= needed)
    found = smallest_capacity(attempts, 100 * MIB, 200 * MIB, MOST)
    assert found is not None and found.by_luck == ()
    assert needed <= found.nbytes <= needed * 1.001 + 512
    assert found.nbytes % 512 == 0
    assert len(attempts.tried) <= expected_attempts(100 * MIB, 200 * MIB)


@pytest.mark.parametrize("needed", [300 * MIB, 1000 * MIB])
def test_search_goes_beyond_what_should_suffice(needed: int) -> None:
    found = smallest_capacity(lambda capacity: capacity >= needed, 100 * MIB, 200 * MIB, MOST)
    assert found is not None and needed <= found.nbytes <= needed * 1.001


def test_search_that_finds_nothing_ends_at_the_most() -> None:
    attempts = Attempts(lambda capacity: False)
    assert smallest_capacity(attempts, 100, 200, 5000) is None
    assert max(attempts.tried) == 5000


def test_what_completes_by_luck_is_told_and_the_next_that_holds_is_taken() -> None:
    """120 MiB are enough, 121 to 130 are not."""

    def completes(capacity: int) -> bool:
        return capacity >= 130 * MIB or 119 * MIB <= capacity < 121 * MIB

    found = smallest_capacity(completes, 118 * MIB, 120 * MIB, MOST)
    assert found is not None
    assert 130 * MIB <= found.nbytes <= 130 * MIB * 1.001
    ((lucky, failing),) = found.by_luck
    assert completes(lucky) and not completes(failing) and 1.01 <= failing / lucky <= 1.0201


@pytest.mark.parametrize("seed", range(30))
def test_what_is_found_completes_somewhat_above_too_however_capacities_behave(seed: int) -> None:
    draw = random.Random(seed)
    gaps = sorted(draw.uniform(1, 2.5) for _ in range(12))

    def completes(capacity: int) -> bool:
        at = capacity / MIB
        return at >= gaps[-1] or (at >= gaps[0] and sum(gap <= at for gap in gaps) % 2 == 1)

    found = smallest_capacity(Attempts(completes), MIB, round(draw.uniform(1, 3) * MIB), MOST)
    assert found is not None
    assert all(completes(-(-round(found.nbytes * margin) // 512) * 512) for margin in (1, 1.01, 1.02))
    assert list(found.by_luck) == sorted(found.by_luck)


def test_capacity_below_a_step_is_a_step() -> None:
    assert smallest_capacity(lambda capacity: capacity >= 512, 1, 1, MOST) == Capacity(512)


# The command.


def churn(path: Path, seed: int = 1, events: int = 3000, threads: int = 1, streams: int = 1) -> Path:
    """Write a log of allocations of very different sizes, freed in random order."""
    draw = random.Random(seed)
    live: list[tuple[int, int]] = []
    lines = [HEADER]
    for at in range(events):
        if live and draw.random() < 0.49:
            action, (pointer, size) = "free", live.pop(draw.randrange(len(live)))
        else:
            action, pointer, size = "allocate", (at + 1) << 32, draw.choice((700, 5000, 300_000, 3 * MIB, 9_000_001))
            live.append((pointer, size))
        thread, stream = draw.randrange(threads) + 1, draw.randrange(streams) * 8
        lines.append(f"{thread},00:00:00.{at:06},{action},{pointer:#x},{size},{stream:#x}\n")
    path.write_text("".join(lines))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "cenote", "replay", *map(str, arguments)]


def environment_with(**changes: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CENOTE_")}
    return {**inherited, "COLUMNS": "120", **changes}


def replay(*arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*arguments), env=environment_with(**changes), capture_output=True, text=True, timeout=240
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


def find(file: Path, *resources: str, **changes: str) -> dict[str, Any]:
    """The JSON of a search that finds something for each resource."""
    chosen = [word for resource in resources for word in ("--resource", resource)]
    done = replay(file, "--capacity", "min", "--json", "--simulate", *chosen, **changes)
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    assert set(facts) == KEYS
    assert all(set(result) == KEYS_OF_RESULT for result in facts["results"])
    return facts


@pytest.mark.slow
@pytest.mark.parametrize(("name", "on_a_device"), [("gnn", 1.0015), ("multistream", 1.0138)])
def test_capacity_is_that_of_a_device(name: str, on_a_device: float) -> None:
    """An H200's: docs/choosing.md."""
    file = Path(__file__).parents[1] / "traces" / f"{name}.csv.gz"
    if not file.is_file():
        pytest.skip("the traces are in the repository, not in distributions")
    (found,) = find(file, "pool")["results"]
    assert found["capacity_ratio"] == pytest.approx(on_a_device, abs=0.002)


@pytest.mark.slow
def test_recommended_resource_async_and_cuda_are_compared_if_nothing_is_asked_for(tmp_path: Path) -> None:
    facts = find(churn(tmp_path / "run.csv"))
    assert [result["resource"] for result in facts["results"]] == ["pool", "async", "cuda"]
    for result in facts["results"]:
        assert result["completed"] is True
        assert 1 <= result["capacity_ratio"] <= result["held_ratio"] * 1.001
        assert result["capacity_ratio"] == pytest.approx(result["capacity_bytes"] / facts["peak_bytes"], abs=1e-6)
        assert result["seconds"] > 0
        assert result["driver_calls"]["cuCtxPushCurrent"] > 0
        assert "cuInit" not in result["driver_calls"], "what loads the driver is not counted"
    plain = facts["results"][2]
    assert plain["capacity_ratio"] == pytest.approx(1, abs=0.001), "plain memory needs what is live, and no more"
    assert plain["driver_calls"]["cuMemAlloc"] == plain["driver_calls"]["cuMemFree"]


@pytest.mark.slow
def test_recorded_training_completes_with_what_is_found_and_with_somewhat_more() -> None:
    facts = find(trace.example(), "pool:initial=0")
    assert (facts["trace"], facts["peak_bytes"]) == (str(trace.example()), 8_014_843_968)
    assert facts["floor"] == 1.001629
    (result,) = facts["results"]
    assert 1 <= result["capacity_ratio"] <= result["held_ratio"] <= 1.3
    capacity = result["capacity_bytes"]
    for limit, fits in (*((round(capacity * share), True) for share in (1, 1.01, 1.02)), (facts["peak_bytes"], False)):
        assert replay(trace.example(), "--limit", limit, "--simulate").returncode == (0 if fits else 1), limit


@pytest.mark.slow
def test_recorded_threads_and_streams_are_kept_apart(tmp_path: Path) -> None:
    """On several threads and streams a pool needs other amounts, and the same ones again in a second run."""
    file = churn(tmp_path / "run.csv", events=1000, threads=4, streams=3)
    first, second = find(file, "pool:initial=0"), find(file, "pool:initial=0")
    for facts in (first, second):
        del facts["results"][0]["seconds"]
    assert first == second
    assert first["results"][0]["driver_calls"]["cuStreamCreate"] == 2


WAYS = """
    from pathlib import Path
    from cenote import driver, trace
    from cenote.cli.capacity_measurement import measure
    from cenote.cli.limited_resource import LimitedResource, Way
    from cenote.cli.simulated_machine import SimulatedMachine
    from cenote.cli.terminal import Terminal
    from cenote.logs.floor import page_floor
    import io

    recorded = trace.read(Path("FILE"))
    driver.device_count()
    with SimulatedMachine() as machine:
        for specification in ("pool:initial=100% | cuda", "pool:initial=0"):
            for way in Way:
                limited = LimitedResource(specification, 0, machine, way)
                print(measure(limited, recorded, page_floor(recorded), Terminal(io.StringIO())).capacity_bytes)
    print(driver.memory_info(0)[1])
"""


@pytest.mark.slow
def test_pool_needs_the_same_as_a_limit_and_as_a_device(tmp_path: Path, run_fresh: Callable[..., Any]) -> None:
    """To a thousandth where all is taken at the start; where it grows, as near as its steps let it."""
    file = churn(tmp_path / "run.csv")
    done = run_fresh(WAYS.replace("FILE", str(file)), CENOTE_SIM="memory=2GiB")
    whole_by_maximum, whole_by_device, maximum, device, total = map(int, done.stdout.split())
    assert abs(whole_by_maximum - whole_by_device) <= 0.001 * whole_by_device + 512
    assert abs(maximum - device) <= 0.1 * device
    assert total == 2 * 1024 * MIB, "the machine is as it was"


def test_specifications_are_limited_where_they_take_their_memory(tmp_path: Path) -> None:
    file = churn(tmp_path / "run.csv", events=600)
    done = replay(
        *(file, "--capacity", "min", "--simulate"),
        *("--resource", "statistics | pool:initial=0 | managed", "--resource", "binning | pool:initial=1GiB"),
        *("--resource", "arena", "--resource", "cuda"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "by max= of the pool: statistics | pool:initial=0 | managed, binning | pool:initial=1GiB" in done.stdout
    assert "by the size of the device: arena, cuda" in done.stdout


@pytest.mark.slow
def test_trace_that_is_too_large_for_the_device_is_measured_on_a_larger_one(tmp_path: Path) -> None:
    file = churn(tmp_path / "run.csv", events=600)
    small = find(file, "pool:initial=0", "cuda", CENOTE_SIM="memory=1MiB,devices=2")
    large = find(file, "pool:initial=0", "cuda")
    for facts in (small, large):
        for result in facts["results"]:
            del result["seconds"], result["driver_calls"]
    assert small == large


def test_resource_that_takes_nothing_of_the_device_has_no_smallest_one(tmp_path: Path) -> None:
    file = churn(tmp_path / "run.csv", events=600)
    (result,) = find(file, "managed")["results"]
    assert (result["capacity_bytes"], result["held_ratio"], result["completed"]) == (None, 0, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("resource", "why"),
    [
        ("limiting:limit=1MiB | pool:initial=0", "The trace completes on no device, not even on one of 4.00 TiB"),
        ("system", "It cannot be used on this device: system memory needs a device"),
    ],
)
def test_resource_that_always_fails_is_a_row_a_reason_and_exit_status_1(
    tmp_path: Path, resource: str, why: str
) -> None:
    arguments = (churn(tmp_path / "run.csv"), "--capacity", "min", "--resource", resource, "--resource", "cuda")
    done = replay(*arguments, "--simulate", "--json")
    assert done.returncode == 1
    fails, completes = json.loads(done.stdout)["results"]
    assert fails == dict.fromkeys(KEYS_OF_RESULT) | {"resource": resource, "completed": False}
    assert completes["completed"] is True
    assert f"{resource}: {why}" in done.stderr
    shown = replay(*arguments, "--simulate")
    assert shown.returncode == 1 and "fails" in shown.stdout and why in shown.stdout


def test_what_of_a_trace_is_not_made_is_told(tmp_path: Path) -> None:
    file = tmp_path / "run.csv"
    file.write_text(
        f"{HEADER}1,00:00:00.000001,allocate,0x10,1000,0\n1,00:00:00.000002,allocate failure,(nil),5000,0\n"
    )
    done = replay(file, "--capacity", "min", "--simulate")
    assert done.returncode == 0
    assert "Allocations that had failed in the recorded run: 1" in done.stdout


def test_json_alone_is_on_standard_output_even_if_the_rest_cannot_be_written(tmp_path: Path) -> None:
    file = churn(tmp_path / "run.csv", events=600)
    line = " ".join(command(file, "--capacity", "min", "--json", "--simulate"))
    done = subprocess.run(
        ["bash", "-c", f"{line} 2>&-"], env=environment_with(), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0
    assert set(json.loads(done.stdout)) == KEYS


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "begins"), [("png", b"\x89PNG\r\n\x1a\n"), ("svg", b"<?xml")])
def test_chart_is_drawn(tmp_path: Path, ending: str, begins: bytes) -> None:
    pytest.importorskip("matplotlib")
    chart = tmp_path / f"chart.{ending}"
    arguments = ("--resource", "cuda", "--resource", "managed", "--simulate", "--output", chart)
    done = replay(churn(tmp_path / "run.csv", events=600), "--capacity", "min", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert chart.read_bytes().startswith(begins)
    if ending == "svg":
        assert all(text in chart.read_text() for text in ("page floor", "smallest capacity", "held without a limit"))


@pytest.mark.parametrize(
    ("text", "arguments", "complaint"),
    [
        ("", (), "run.csv, line 1: the file is empty"),
        (HEADER, (), "run.csv: nothing is allocated in this trace"),
        (f"{HEADER}1,00:00:00.000001,free,0x10,1000,0\n", (), "run.csv: nothing is allocated in this trace"),
        (
            HEADER + 2 * "1,00:00:00.000001,allocate,0x10,1000,0\n",
            (),
            "run.csv: event 2 of 2: 0x10 is allocated again",
        ),
        (HEADER, ("--limit", "1GiB"), "--limit goes without --capacity min"),
        (HEADER, ("--resource", "lake"), "argument --resource: "),
        (HEADER, ("--output", "chart.jpg"), "argument --output: "),
        (HEADER, ("--output", "no/such/folder/chart.png"), "no/such/folder"),
        (f"{HEADER}1,00:00:00.000001,allocate,0x10,9,0\n", ("--resource", "pool:max=1GiB"), "leave max= out"),
    ],
)
def test_what_is_wrong_is_named_with_exit_status_2(
    tmp_path: Path, text: str, arguments: tuple[str, ...], complaint: str
) -> None:
    (tmp_path / "run.csv").write_text(text)
    done = replay(tmp_path / "run.csv", "--capacity", "min", "--simulate", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr.splitlines()[-1]


def test_json_is_refused_where_there_is_nothing_to_compare(tmp_path: Path) -> None:
    done = replay(churn(tmp_path / "run.csv", events=10), "--simulate", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--json goes with --capacity min" in done.stderr


@pytest.mark.slow
def test_interruption_is_one_line_and_exit_status_130(tmp_path: Path) -> None:
    file = churn(tmp_path / "run.csv", events=200_000, threads=3)
    running = subprocess.Popen(
        command(file, "--capacity", "min", "--simulate"),
        env=environment_with(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None and "simulated" in running.stdout.readline()
    time.sleep(1)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert (running.returncode, errors.strip()) == (130, "cenote: interrupted")
