"""The benchmark suite: what it computes and writes. Never what anything takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from tests.bench.build import BuildError, build  # noqa: E402  found through the line above
from tests.bench.cases import CASES  # noqa: E402
from tests.bench.cores import Cores, time_of_work  # noqa: E402
from tests.bench.distributed import as_table, order_of_round, parse, summarize  # noqa: E402
from tests.bench.goals import Goal  # noqa: E402
from tests.bench.peers import PEERS, choose  # noqa: E402
from tests.bench.report import number, ratio_to_baseline  # noqa: E402
from tests.bench.schedule import interleaved  # noqa: E402
from tests.bench.session import Cell  # noqa: E402
from tests.bench.spread import Spread, ratio  # noqa: E402
from tests.bench.worker import Worker, WorkerError  # noqa: E402

HAS_COMPILER = any(shutil.which(name) for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++") if name)

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def bench() -> Command:
    """Runs the command on the simulated device; the workers in C++ are built without optimisation."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tests.bench", *arguments],
            cwd=ROOT,
            env={**os.environ, "CMAKE_BUILD_TYPE": "Debug"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return run


def test_spread_is_median_and_quartiles() -> None:
    assert Spread.of([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(3.0, 2.0, 4.0, 5)
    assert Spread.of([1.0, 2.0]) == Spread(1.5, 1.25, 1.75, 2)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0, 1)
    with pytest.raises(ValueError, match="no measurement"):
        Spread.of([])


def test_spread_is_steady_while_its_quartiles_lie_within_a_tenth_of_the_median() -> None:
    assert Spread(100.0, 96.0, 105.0, 9).is_steady
    assert not Spread(100.0, 94.0, 106.0, 9).is_steady
    assert Spread(0.0, 0.0, 0.0, 9).is_steady


def test_ratio_is_taken_round_by_round() -> None:
    # In the second round everything took ten times as long: the ratio does not see it.
    assert ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == 2.0
    assert ratio([2.0, 6.0], [1.0, 2.0]) == 2.5
    assert ratio([1.0], [0.0]) is None
    assert ratio([], []) is None


def test_ratio_to_the_baseline_leaves_out_rounds_that_only_one_was_measured_in() -> None:
    case = CASES["pair"]
    pool = Cell(case, case.rows[0], "cenote-pool", values=[30.0, None, 60.0])
    floor = Cell(case, case.rows[0], "mimalloc", values=[10.0, 10.0, 20.0])
    other_row = Cell(case, case.rows[1], "mimalloc", values=[1.0, 1.0, 1.0])
    assert ratio_to_baseline(pool, [other_row, floor, pool]) == 3.0
    assert ratio_to_baseline(floor, [other_row, floor, pool]) is None
    assert ratio_to_baseline(pool, [pool, other_row]) is None


def test_each_round_asks_every_cell_once_and_peers_of_a_row_one_after_the_other() -> None:
    groups = [[(row, peer) for peer in "abcd"] for row in range(5)]
    rounds: dict[int, list[tuple[int, str]]] = {}
    for done, cell in interleaved(groups, 6):
        rounds.setdefault(done, []).append(cell)
    assert list(rounds) == list(range(6))
    for asked in rounds.values():
        assert sorted(asked) == sorted(cell for group in groups for cell in group)
        for start in range(0, len(asked), 4):
            assert len({row for row, _ in asked[start : start + 4]}) == 1
    assert len({tuple(asked) for asked in rounds.values()}) == 6, "each round has an order of its own"
    assert [cell for _, cell in interleaved(groups, 2)] == [cell for _, cell in interleaved(groups, 2)]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no affinity to cores")
def test_peers_of_a_row_share_the_core_that_is_the_fastest_before_it() -> None:
    everywhere = sorted(os.sched_getaffinity(0))
    speeds = dict.fromkeys(everywhere, 2.0)
    cores = Cores(speeds.__getitem__)
    for fastest in everywhere:
        speeds[fastest] = 1.0
        assert cores.of(f"row of {fastest}", 1) == [fastest]
        speeds[fastest] = 3.0
        assert cores.of(f"row of {fastest}", 1) == [fastest], "asked once a row"
    assert cores.of("threads", 2) == everywhere


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no affinity to cores")
def test_looking_for_a_core_leaves_the_program_where_it_was() -> None:
    everywhere = os.sched_getaffinity(0)
    assert Cores().of("row", 1)[0] in everywhere
    assert os.sched_getaffinity(0) == everywhere
    try:
        assert time_of_work(min(everywhere)) > 0
        assert os.sched_getaffinity(0) == {min(everywhere)}
    finally:
        os.sched_setaffinity(0, everywhere)


def test_goal_is_a_limit_from_above_or_from_below() -> None:
    assert Goal("", 3, "×", lambda _: None).is_met(3) and not Goal("", 3, "×", lambda _: None).is_met(3.1)
    assert Goal("", 20, "", lambda _: None, least=True).is_met(21)
    assert not Goal("", 20, "", lambda _: None, least=True).is_met(19)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1 / 32, "0.0312"), (4.206, "4.21"), (99.96, "100"), (281040.2, "281,040")]
)
def test_numbers_are_written_with_the_digits_that_mean_something(value: float, text: str) -> None:
    assert number(value) == text


def test_every_peer_of_a_case_and_every_baseline_is_known() -> None:
    for case in CASES.values():
        assert set(case.peers) <= set(PEERS)
        assert not case.baseline or case.baseline in case.peers
        labels = [row.label for row in case.rows]
        assert len(labels) == len(set(labels))


def test_names_are_chosen_in_the_order_of_the_table() -> None:
    assert choose("malloc, cenote-pool", list(PEERS), "peer") == ["cenote-pool", "malloc"]
    assert choose("all", list(PEERS), "peer") == list(PEERS)
    with pytest.raises(ValueError, match="'rmm-poool' is not a peer; did you mean 'rmm-pool'"):
        choose("malloc,rmm-poool", list(PEERS), "peer")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--cases", "pairs"), "'pairs' is not a case; did you mean 'pair'?"),
        (("--peers", "jemalloc9"), "is not a peer"),
        (("--rounds", "0"), "--rounds must be at least 1"),
        (("--traces", "/no/such/folder"), "/no/such/folder is no folder"),
    ],
)
def test_wrong_argument_is_an_error_that_says_what_is_right(
    bench: Command, tmp_path: Path, arguments: tuple[str, str], message: str
) -> None:
    done = bench("--out", str(tmp_path / "out"), *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_worker_that_ends_is_an_error_with_its_last_words() -> None:
    # The words come after the end, from a child: whoever does not wait for them finds nothing.
    worker = Worker("short", ["sh", "-c", "(exec >&-; sleep 0.5; echo the reason >&2) & exit 1"], os.environ)
    with pytest.raises(WorkerError, match=r"the worker short ended \(status 1\): the reason"):
        worker.ask({"do": "hello"}, 60)
    worker.quit()


def test_without_a_compiler_the_error_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compilers = tmp_path / "empty"
    compilers.mkdir()
    (compilers / "cmake").write_text("#!/bin/sh\n")
    (compilers / "cmake").chmod(0o755)
    monkeypatch.setenv("PATH", str(compilers))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(BuildError, match=r"no C\+\+ compiler"):
        build(tmp_path, "bench_worker", lambda _: None)


def _check_record(record: dict[str, Any], measured: set[tuple[str, str]]) -> None:
    assert record["schema"] == 1 and record["simulated"] is True
    assert {"machine", "options", "rounds", "versions", "notes", "moved", "goals", "cells"} <= set(record)
    for cell in record["cells"]:
        assert cell["unit"] == CASES[cell["case"]].unit
        if (cell["case"], cell["peer"]) in measured:
            assert cell["missing"] == "", cell
            assert len(cell["values"]) == 2 and all(value > 0 for value in cell["values"])
            assert cell["lower"] <= cell["median"] <= cell["upper"]
        else:
            assert cell["missing"], cell
            assert cell["median"] is None


@pytest.mark.slow
def test_run_on_the_simulated_device_writes_page_figures_and_plots(bench: Command, tmp_path: Path) -> None:
    python_peers = {("py-pair", "cenote-pool"), ("py-pair", "python")}
    cpp_peers = {("pair", "cenote-pool"), ("pair", "malloc"), ("floor", "machine"), ("handoff", "cenote-pool")}
    peers = ("cenote-pool", "malloc", "machine", "python", "rmm-pool")
    options = ["--quick", "--rounds", "2", "--peers", ",".join(peers), "--build", str(ROOT / "build" / "bench-test")]
    done = bench(*options, "--cases", "floor,pair,handoff,py-pair", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "bench.json").read_text())
    _check_record(record, python_peers | cpp_peers if HAS_COMPILER else python_peers)
    page = (tmp_path / "bench.md").read_text()
    assert "On the simulated device" in page
    assert "needs a GPU: rmm-pool (everything)" in page
    assert "## allocate and deallocate from Python" in page
    assert (tmp_path / "py-pair.png").read_bytes().startswith(b"\x89PNG")
    if not HAS_COMPILER:
        assert "no C++ compiler" in page
        return
    pool = next(cell for cell in record["cells"] if (cell["case"], cell["peer"]) == ("handoff", "cenote-pool"))
    assert pool["figures"]["waits"] == 1, "each block that changes its stream is waited for"
    assert (tmp_path / "pair.png").is_file()
    assert "| compare-and-swap, uncontended |" in page


def test_distributed_launches_begin_with_another_arm_in_each_round() -> None:
    rounds = ["".join(order_of_round("abc", number)) for number in range(4)]
    assert rounds == ["abc", "bca", "cab", "abc"]


def test_distributed_ratios_are_those_of_launches_in_one_round() -> None:
    def launched(number: int, arm: str, *seconds: float) -> dict[str, Any]:
        return {"round": number, "arm": arm, "ddp": {"seconds": list(seconds)}}

    launches = [
        launched(0, "torch", 1.0, 2.0, 9.0),
        launched(0, "cenote", 4.0),
        launched(1, "torch", 4.0),
        launched(1, "cenote", 4.0),
        launched(2, "cenote", 100.0),  # PyTorch's own failed in that round
    ]
    torch, cenote = summarize(launches, ["torch", "cenote", "cenote-device"], ["ddp"])
    assert (torch["median"], torch["least"], torch["most"], torch["ratio"]) == (3.0, 2.0, 4.0, 1.0)
    assert (cenote["median"], cenote["ratio"], cenote["ratios"]) == (4.0, 1.5, [2.0, 1.0])
    table = as_table([torch, cenote]).splitlines()
    assert "| 3.00000 | 2.00000 … 4.00000 |  |  |" in table[2]
    assert "| 4.00000 | 4.00000 … 100.00000 | 1.500 | 1.000 … 2.000 |" in table[3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arms", "torch,lake"], "--arms: 'lake' is not known; known are: torch, cenote, cenote-device"),
        (["--modes", ""], "--modes: '' is not known"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--device", "cpu"], "--device cpu is for --arms torch"),
    ],
)
def test_distributed_arguments_that_make_no_sense_are_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)
    assert message in capsys.readouterr().err
