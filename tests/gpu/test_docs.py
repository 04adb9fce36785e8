"""The programs on the pages that need a GPU, each in a fresh process, where the frameworks that it names are there."""

from __future__ import annotations

import importlib.util
import os
import runpy
from pathlib import Path

import pytest

snippets = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "snippets.py"))
PROGRAMS = [program for program in snippets["programs"]() if program.needs]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_program_on_a_page_runs_on_the_gpu(program, tmp_path: Path) -> None:
    missing = [name for name in program.needs if name != "gpu" and importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CENOTE_")}
    snippets["run"](program, tmp_path, environment)
