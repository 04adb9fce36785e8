"""cenote does the same on 8 devices and in 64 processes at a time, and nothing is shared between them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "bench" / "scaling.py"
DEVICES, PROCESSES = 8, 64

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("scaling")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(folder), "--devices", str(DEVICES), "--processes", str(PROCESSES)],
        env={**os.environ, "CENOTE_SIM": f"devices={DEVICES},memory=80GiB"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"| {PROCESSES} |" in (folder / "scaling.md").read_text()
    found: dict[str, Any] = json.loads((folder / "scaling.json").read_text())
    return found


def test_every_device_after_the_first_costs_the_same_and_no_file_or_thread(measured: dict[str, Any]) -> None:
    pools = [step for step in measured["one"]["steps"] if step["step"].endswith("has its pool")]
    assert len(pools) == DEVICES
    assert {(step["files"], step["threads"]) for step in pools[1:]} == {(0, 0)}
    assert len({step["addresses"] for step in pools[1:]}) == 1


def test_each_of_many_processes_works_and_has_what_one_has(measured: dict[str, Any]) -> None:
    alone, *_, most = measured["together"]
    assert (alone["processes"], most["processes"]) == (1, PROCESSES)
    assert len(most["told"]) == PROCESSES
    (one,) = alone["told"]
    for told in most["told"]:
        assert [step["step"] for step in told["steps"]][-1] == "pairs"
        assert (told["all"]["files"], told["all"]["threads"]) == (one["all"]["files"], one["all"]["threads"])
    devices = {told["steps"][2]["step"] for told in most["told"]}
    assert devices == {f"device {device} chosen" for device in range(DEVICES)}
