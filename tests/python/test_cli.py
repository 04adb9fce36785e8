"""The command as its users meet it: each test runs it in fresh processes, on the simulated device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cenote import trace

PNG = b"\x89PNG\r\n\x1a\n"


def cenote(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m cenote``; it must not end in a traceback, whatever the test is about."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CENOTE_")}
    done = subprocess.run(
        [sys.executable, "-m", "cenote", *map(str, arguments)],
        cwd=cwd,
        env={**inherited, "COLUMNS": "100", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


def without(tmp_path: Path, *modules: str) -> str:
    """A PYTHONPATH on which these modules cannot be imported."""
    for module in modules:
        folder = tmp_path / "blocked" / module
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(f"raise ImportError('{module} is blocked')\n")
    return str(tmp_path / "blocked")


@pytest.mark.parametrize("environment", [{}, {"CENOTE_CUDA_DRIVER": "sim"}])
def test_simulated_demo_says_so_first_and_leaves_logs_and_timeline(tmp_path: Path, environment: dict[str, str]) -> None:
    done = cenote("demo", "--simulate", cwd=tmp_path, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "simulated" in done.stdout.splitlines()[0]
    assert "pytorch (recorded)" in done.stdout
    folder = tmp_path / "cenote-demo"
    assert (folder / "timeline.png").read_bytes().startswith(PNG)
    assert len(trace.read(folder / "allocations.dev0.csv")) == 2 * (13_098 + 1)
    assert len(trace.read(folder / "chunks.dev0.csv")) > 0


def test_demo_without_a_driver_is_simulated_and_says_why(tmp_path: Path) -> None:
    done = cenote("demo", cwd=tmp_path, CENOTE_CUDA_DRIVER="/no/such/libcuda.so.1")
    assert done.returncode == 0
    assert "simulated" in done.stdout.splitlines()[0]
    assert "/no/such/libcuda.so.1" in done.stdout


@pytest.mark.parametrize("missing", [("rich",), ("matplotlib",), ("rich", "matplotlib")])
def test_demo_without_rich_or_matplotlib_still_reports(tmp_path: Path, missing: tuple[str, ...]) -> None:
    done = cenote("demo", "--simulate", cwd=tmp_path, PYTHONPATH=without(tmp_path, *missing))
    assert (done.returncode, done.stderr) == (0, "")
    assert "simulated" in done.stdout.splitlines()[0]
    assert "pytorch (recorded)" in done.stdout
    assert ("pip install 'cenote[cli]'" in done.stdout) == ("matplotlib" in missing)
    assert (tmp_path / "cenote-demo" / "timeline.png").exists() == ("matplotlib" not in missing)


def test_demo_replays_a_trace_of_the_users_into_a_folder_of_theirs(tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text("Thread,Time,Action,Pointer,Size,Stream\n1,00:00:00.000001,allocate,0x10,1000000,0x5\n")
    done = cenote("demo", "--simulate", "--trace", own, "--output", "some/where, else", cwd=tmp_path)
    assert done.returncode == 0
    assert "own.csv" in done.stdout
    assert (tmp_path / "some" / "where, else" / "timeline.png").read_bytes().startswith(PNG)


def test_demo_on_an_empty_trace_works(tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text("Thread,Time,Action,Pointer,Size,Stream\n")
    assert cenote("demo", "--simulate", "--trace", empty, cwd=tmp_path).returncode == 0


def test_demo_on_a_card_too_small_says_where_memory_ran_out(tmp_path: Path) -> None:
    done = cenote("demo", "--simulate", cwd=tmp_path, CENOTE_SIM="memory=4GiB")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "of 26,194" in done.stderr


@pytest.mark.parametrize("command", ["demo", "replay"])
def test_bad_trace_is_one_line_and_exit_status_2(tmp_path: Path, command: str) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("Thread,Time,Action,Pointer,Size,Stream\n1,noon,allocate,0x1,1,0\n")
    done = cenote(command, *(("--trace",) if command == "demo" else ()), bad, "--simulate", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"{bad}, line 2: 'noon' is not a time" in line


def test_device_that_is_not_there_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    done = cenote("demo", "--simulate", "--device", 3, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "there is no device 3" in line
    assert cenote("demo", "--simulate", "--device", 3, cwd=tmp_path, CENOTE_SIM="devices=4").returncode == 0


def test_output_that_cannot_be_written_is_exit_status_2(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = cenote("demo", "--simulate", "--output", "file/folder", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_info_is_json_with_stable_keys(tmp_path: Path) -> None:
    done = cenote("info", "--json", cwd=tmp_path, CENOTE_CUDA_DRIVER="sim", CENOTE_SIM="devices=2,memory=24GiB")
    assert done.returncode == 0
    facts = json.loads(done.stdout)
    assert set(facts) == {"cenote", "python", "driver", "devices", "frameworks"}
    assert facts["driver"]["simulated"] is True
    assert facts["driver"]["devices"] == len(facts["devices"]) == 2
    assert facts["devices"][1]["total_bytes"] == 24 * 1024**3
    assert facts["devices"][1]["resource"] == "cuda"
    assert [each["name"] for each in facts["frameworks"]] == ["torch", "cupy", "numba.cuda", "cuda.core"]


def test_info_without_a_driver_says_what_is_missing(tmp_path: Path) -> None:
    nowhere = {"CENOTE_CUDA_DRIVER": "/no/such/libcuda.so.1"}
    done = cenote("info", cwd=tmp_path, **nowhere)
    assert done.returncode == 0
    assert "No driver" in done.stdout
    facts = json.loads(cenote("info", "--json", cwd=tmp_path, **nowhere).stdout)
    assert facts["driver"]["available"] is False
    assert "libcuda" in facts["driver"]["error"]
    assert facts["devices"] == []


def test_info_imports_no_framework(tmp_path: Path) -> None:
    """Broken frameworks do not break it: it looks at what is installed, and imports nothing of it."""
    blocked = without(tmp_path, "torch", "cupy", "numba")
    assert cenote("info", cwd=tmp_path, PYTHONPATH=blocked).returncode == 0


def test_replay_reports_and_draws(tmp_path: Path) -> None:
    done = cenote("replay", trace.example(), "--simulate", "--limit", "12GiB", "--output", "run.png", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "7.46 GiB" in done.stdout
    assert (tmp_path / "run.png").read_bytes().startswith(PNG)


def test_replay_that_does_not_fit_is_exit_status_1(tmp_path: Path) -> None:
    done = cenote("replay", trace.example(), "--simulate", "--limit", "4GiB", cwd=tmp_path)
    assert done.returncode == 1
    assert "out of memory at event" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_wrong_specification_is_exit_status_2(tmp_path: Path) -> None:
    done = cenote("replay", trace.example(), "--simulate", "--resource", "lake | cuda", cwd=tmp_path)
    assert done.returncode == 2
    assert "'lake' is not a known resource" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("demo",), ("info",), ("replay",)])
def test_help_shows_examples(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = cenote(*arguments, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "examples:" in done.stdout


def test_no_command_is_exit_status_2(tmp_path: Path) -> None:
    assert cenote(cwd=tmp_path).returncode == 2
