"""The examples, each in a process of its own, on the simulated device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

SAYS = {
    "choose_a_resource.py": ["statistics | pool:initial=64MiB,max=1GiB | cuda", "the water is the same", "2.00 GiB"],
    "share_one_pool.py": [
        "current resource: pool:initial=64MiB,max=2GiB | cuda",
        "torch",
        "cupy",
        "numba",
        "1,000,000",
    ],
    "count_driver_calls.py": ["cuda: ", "1000 of them cuMemAlloc", "0 of them cuMemAlloc", "handled: out_of_memory"],
    "replay_a_trace.py": ["26,194 events", "pool:initial=0 | cuda", "async", "13,098 allocations"],
}


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_example_runs_and_says_what_it_promises(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        cwd=tmp_path,
        env={**os.environ, "CENOTE_SIM": "memory=80GiB"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for words in SAYS[name]:
        assert words in done.stdout


@pytest.mark.parametrize("name", SAYS)
def test_example_says_what_it_shows_and_how_to_run_it(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    assert text.startswith('"""')
    assert f"python {name}" in text.split('"""')[1]
