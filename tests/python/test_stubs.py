"""The stubs of the compiled modules say what is there, as far as mypy's stubtest can see it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_stubs_agree_with_the_compiled_modules(tmp_path: Path) -> None:
    pytest.importorskip("mypy.stubtest")
    allowlist = ROOT / "tests" / "stubtest_allowlist.txt"
    command = [sys.executable, "-m", "mypy.stubtest", "--mypy-config-file", str(ROOT / "pyproject.toml")]
    command += ["--allowlist", str(allowlist), "--ignore-missing-stub", "--concise", "cenote._core"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
