"""The programs on the pages that need a GPU, each in a fresh process, where the frameworks that it names are there."""

from __future__ import annotations

import importlib.util
import os
import runpy
import shutil
from pathlib import Path

import pytest

snippets = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "snippets.py"))
PROGRAMS = [program for program in snippets["programs"]() if program.needs]


def is_there(name: str) -> bool:
    """Whether the machine has what a program needs; each of these tests has a GPU."""
    if name == "nvcc":
        return shutil.which(name) is not None
    try:
        return name == "gpu" or importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of the package that it lies in
        return False


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_program_on_a_page_runs_on_the_gpu(program, tmp_path: Path) -> None:
    missing = [name for name in program.needs if not is_there(name)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CENOTE_")}
    snippets["run"](program, tmp_path, environment)
