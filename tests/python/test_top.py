"""``cenote top``: what it shows of a process is what that process holds; files of others never harm it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cenote.cli import main
from cenote.cli.counters_file import processes

MIB = 1024**2

HOLDS = """
    import os, sys, cenote
    from cenote import mr, registry
    mr.set_current_device_resource(mr.from_spec("pool:max=256MiB"))
    work, library = registry.Client("work"), registry.Client("library")
    with cenote.tag("kv cache"):
        kept = [work.allocate(10 << 20), library.allocate(3 << 20, device=1)]
    for _ in range(5):
        work.deallocate(work.allocate(20 << 20))
"""
WAITS = "\nprint('holding', flush=True); sys.stdin.readline()"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CENOTE_COUNTERS", str(tmp_path / "counters"))
    return tmp_path / "counters"


@contextmanager
def process(program: str) -> Iterator[subprocess.Popen[str]]:
    """One that has run the program and waits."""
    command = [sys.executable, "-c", textwrap.dedent(program) + WAITS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "holding\n"
        try:
            yield running
        finally:
            running.kill()


def top(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["top", "--json", *arguments]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_what_a_process_holds_is_shown_while_it_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with process(HOLDS) as running:
        (seen,) = top(capsys, str(running.pid))["processes"]
        assert main(["top", "--once"]) == 0
        table = capsys.readouterr().out
    assert [(each["device"], each["in_use"]) for each in seen["devices"]] == [(0, 10 * MIB), (1, 3 * MIB)]
    assert seen["devices"][0]["held"] >= 10 * MIB
    assert seen["devices"][0]["most_held"] >= 30 * MIB
    assert seen["clients"] == [
        {"name": "work", "bytes": 10 * MIB, "peak_bytes": 30 * MIB, "blocks": 1, "allocations": 6},
        {"name": "library", "bytes": 3 * MIB, "peak_bytes": 3 * MIB, "blocks": 1, "allocations": 1},
    ]
    assert [(each["name"], each["bytes"]) for each in seen["tags"]] == [("kv cache", 13 * MIB)]
    for word in (str(running.pid), "work 10.00 MiB", "kv cache 13.00 MiB"):
        assert word in table.replace("\n", " "), table
    assert {path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())} == {0o700, 0o600}


def test_command_is_shown_in_part_if_it_is_a_whole_program(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with process(HOLDS) as running:
        for only in ([], [str(running.pid)]):
            assert main(["top", "--once", *only]) == 0
            lines = capsys.readouterr().out.splitlines()
            (shown,) = [line for line in lines if " -c import os, sys, cenote from cenote import mr" in line]
            assert shown.rstrip().endswith("…")


def test_files_of_processes_that_have_ended_are_removed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with process(HOLDS) as killed:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert len(list(folder.iterdir())) == 1
        assert top(capsys) == {"processes": [], "problems": []}
        assert list(folder.iterdir()) == []
    with process(HOLDS) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
        with process(HOLDS) as second:  # removes the one of the first
            assert [path.name.partition("-")[0] for path in folder.iterdir()] == [str(second.pid)]
            second.communicate("")  # which ends it as programs end
        assert list(folder.iterdir()) == []
    assert main(["top", "--once", str(second.pid)]) == 1
    assert "has ended" in capsys.readouterr().err


def test_forked_child_counts_for_itself(folder: Path) -> None:
    forks = """
    child = os.fork()
    if child == 0:
        assert registry.usage()["work"].bytes == 10 << 20
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    """
    with process(HOLDS + forks) as running:
        (seen,) = processes(folder)
        assert (seen.number, seen.in_use) == (running.pid, 13 * MIB)


def test_file_that_is_none_or_damaged_is_named_and_nothing_else_happens(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with process(HOLDS) as running:
        (whole,) = folder.iterdir()
        content = whole.read_bytes()
        locked = []
        for at, damaged in enumerate((content[:100], content[:-1], content[:8] + b"\x09" + content[9:], b"x" * 5000)):
            file = folder / f"1-{at}"
            file.write_bytes(damaged)
            locked.append(file.open())
            fcntl.flock(locked[-1], fcntl.LOCK_EX)
        (folder / "1-8").symlink_to("/etc/passwd")
        os.mkfifo(folder / "1-9")
        (folder / "notes.txt").write_text("mine")
        told = top(capsys)
        assert [each["process"] for each in told["processes"]] == [running.pid]
        assert len(told["problems"]) == 6
        assert all(str(folder / f"1-{at}") in " ".join(told["problems"]) for at in (0, 1, 2, 3, 8, 9))
        for file in locked:
            file.close()
    assert (folder / "notes.txt").read_text() == "mine"


def test_folder_that_others_may_write_to_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    assert main(["top", "--once"]) == 2
    assert f"{folder}: it is not this user's alone" in capsys.readouterr().err
    with process(HOLDS):
        assert list(folder.iterdir()) == []  # it counts in its own memory


@pytest.mark.parametrize("value", ["off", "/proc/cannot/be/made"])
def test_without_a_file_a_process_counts_as_before(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CENOTE_COUNTERS", value)
    with process(HOLDS + "\n    assert registry.usage()['work'].bytes == 10 << 20"):
        pass
    assert main(["top", "--once"]) == (1 if value == "off" else 0)
