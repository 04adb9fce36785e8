"""What Python makes of an environment that a caller with fewer rights chose. Needs root, to make such a program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a set-user-id program")


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that every user may enter, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def run_with_rights_of_its_own(folder: Path, code: str, **variables: str) -> str:
    """Give the output of the code in a set-user-id Python of root's that another user runs."""
    program = folder / "python"
    shutil.copy(Path(sys.executable).resolve(), program)
    program.chmod(0o4755)
    done = subprocess.run(
        [program, "-c", code],
        env={"PYTHONHOME": sys.base_prefix, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables},
        user=NOBODY,
        group=NOBODY,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_library_that_the_environment_names_is_not_loaded(folder: Path) -> None:
    (folder / "libcenote_sim.so").write_text("no library")  # it would not load
    said = run_with_rights_of_its_own(
        folder,
        """
import cenote
from cenote import sim
assert cenote._core.environment.is_secure_execution()
assert not sim.is_active()
for ask in (sim.configure, sim.reset, sim.calls):
    try:
        ask()
    except RuntimeError as error:
        print(error)
""",
        CENOTE_CUDA_DRIVER=str(folder / "libcenote_sim.so"),
    )
    assert "cenote.sim.configure: this program has rights" in said
    assert "cenote.sim.reset: " in said
    assert "cenote.sim.calls: " in said


def test_info_says_of_each_variable_that_it_is_not_followed(folder: Path) -> None:
    set_variables = {"CENOTE_CUDA_DRIVER": "sim", "CENOTE_RESOURCE": "cuda", "RMM_LOG_FILE": str(folder / "log.csv")}
    said = run_with_rights_of_its_own(
        folder, "from cenote.cli import main; assert main(['info', '--json']) == 2", **set_variables
    )
    environment = json.loads(said)["environment"]
    assert {each["name"] for each in environment} == set(set_variables)
    assert all("not followed" in each["error"] for each in environment)
