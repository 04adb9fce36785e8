"""Tests that need a device. Each runs its program in a fresh process, as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from functools import cache

import pytest

TIMEOUT_SECONDS = 300

# Without PyTorch's full allocator, which its own tests build: `install` would take it from the user's cache.
_EMPTY_CACHE = tempfile.TemporaryDirectory(prefix="cenote-cache-")


def _environment(extra: dict[str, str]) -> dict[str, str]:
    # Without what other tests set for the simulated device.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CENOTE_")}
    return inherited | {"XDG_CACHE_HOME": _EMPTY_CACHE.name} | extra


def _run(code: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        env=_environment(extra),
        check=False,
    )


@cache
def why_no_device() -> str:
    """Empty where there is a real device, else the reason."""
    probe = """
        import cenote.driver
        try:
            cenote.driver.version()
        except cenote.DriverUnavailableError as error:
            print(error)
    """
    result = _run(probe)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if item.path.is_relative_to(os.path.dirname(__file__))]
    for item in ours:
        item.add_marker(pytest.mark.gpu)
    if ours and (reason := why_no_device()):
        for item in ours:
            item.add_marker(pytest.mark.skip(reason=f"needs a CUDA device: {reason}"))


@pytest.fixture
def run() -> Callable[..., str]:
    """Runs a program in a fresh process; returns what it printed, fails with its error if it failed."""

    def run_program(code: str, **environment: str) -> str:
        result = _run(code, **environment)
        assert result.returncode == 0, f"exit status {result.returncode}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    return run_program


@pytest.fixture
def full_allocator() -> str:
    """Builds PyTorch's full allocator; gives the XDG_CACHE_HOME with which programs find it."""
    pytest.importorskip("torch")
    from cenote.allocators.torch import full_build

    full_build.build()
    return os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")


@pytest.fixture
def run_command() -> Callable[..., str]:
    """Runs `python -m …` in a fresh process; returns what it printed."""

    def run_module(*arguments: str, cwd: str | None = None) -> str:
        result = subprocess.run(
            [sys.executable, "-m", *arguments],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            env=_environment({}),
            cwd=cwd,
            check=False,
        )
        assert result.returncode == 0, f"exit status {result.returncode}\n{result.stdout}\n{result.stderr}"
        assert "Traceback" not in result.stderr, result.stderr
        return result.stdout

    return run_module
