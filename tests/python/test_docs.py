"""The pages: every program on them runs, the site builds without a warning, and nothing is left out of the tables."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from cenote import mr

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
snippets = runpy.run_path(str(DOCS / "snippets.py"))

PROGRAMS = snippets["programs"]()
SIMULATED = [program for program in PROGRAMS if not program.needs]
FRAMEWORKS = {"gpu", "torch", "cupy", "numba"}
ENVIRONMENT_VARIABLE = re.compile(r'(?:getenv\(|environ(?:\.get)?[\[(])\s*"([A-Z_]+)"')


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("program", SIMULATED, ids=lambda program: program.name)
def test_program_on_a_page_runs_and_prints_what_the_page_says(program, tmp_path: Path) -> None:
    devices = {"CENOTE_CUDA_DRIVER": "sim", "CENOTE_SIM": "devices=2,memory=8GiB,pageable=1"}
    snippets["run"](program, tmp_path, {**os.environ, **devices})


def test_every_block_of_python_is_in_a_program() -> None:
    written = {
        (str(path.relative_to(ROOT)), number)
        for path in snippets["pages"]()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.match(r"\s*(`{3,}|~{3,})\s*(python|py|pycon)", line)
    }
    assert written == {(block.page, block.line) for program in PROGRAMS for block in program.blocks}


def test_what_a_program_needs_is_something_that_a_gpu_machine_has() -> None:
    for program in PROGRAMS:
        assert set(program.needs) <= FRAMEWORKS, program.name


@pytest.mark.parametrize(
    ("output", "printed", "is_right"),
    [("1\n", "1\n", True), ("1\n", "2\n", False), ("at 0x…\n", "at 0x7f\n", True), ("a.c\n", "abc\n", False)],
)
def test_output_of_a_program_is_compared(output: str, printed: str, is_right: bool, tmp_path: Path) -> None:
    block = snippets["Block"]("a page", 1, f"print({printed!r}, end='')", output)
    program = snippets["Program"]([block])
    if is_right:
        snippets["run"](program, tmp_path, dict(os.environ))
        return
    with pytest.raises(AssertionError, match="a page:1 prints"):
        snippets["run"](program, tmp_path, dict(os.environ))


def test_program_that_fails_says_on_which_page_and_line(tmp_path: Path) -> None:
    program = snippets["Program"]([snippets["Block"]("a page", 41, "\n1 / 0\n")])
    with pytest.raises(AssertionError, match=r'(?s)File "a page", line 43.*ZeroDivisionError'):
        snippets["run"](program, tmp_path, dict(os.environ))


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", "doctrees", str(DOCS), "html"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "html" / "index.html").is_file()


def test_every_resource_and_adaptor_is_in_a_table_of_the_guide() -> None:
    classes = {name for name in mr.__all__ if name.endswith(("MemoryResource", "ResourceAdaptor"))}
    classes -= {"DeviceMemoryResource", "UpstreamResourceAdaptor"}
    rows = set(re.findall(r"^\| `(\w+)` \|", page("choosing.md") + page("adaptors.md"), re.MULTILINE))
    assert classes == rows


def test_every_word_of_a_specification_is_in_a_table_of_the_guide() -> None:
    tables = page("choosing.md") + page("adaptors.md")
    words = re.findall(r"^(\w+)", mr.known_specifications(), re.MULTILINE)
    assert [word for word in words if f"| `{word}" not in tables] == []


def test_every_environment_variable_has_its_row() -> None:
    sources = [path for folder in ("core", "plugins") for path in (ROOT / folder).rglob("*")]
    read = {
        name
        for path in sources
        if path.suffix in {".py", ".pyx", ".cpp", ".hpp"} and path.is_file()
        for name in ENVIRONMENT_VARIABLE.findall(path.read_text(encoding="utf-8"))
        if name.startswith(("CENOTE_", "RMM_"))
    }
    assert {"CENOTE_RESOURCE", "CENOTE_CUDA_DRIVER"} <= read
    assert [name for name in read if f"`{name}`" not in page("environment.md")] == []


def test_costs_of_pairs_are_measured_for_every_case(tmp_path: Path) -> None:
    bench = ROOT / "tests" / "bench" / "pair_cost.py"
    done = subprocess.run(
        [sys.executable, str(bench), "--out", str(tmp_path), "--rounds", "2", "--share", "0.002"],
        env={**os.environ, "CENOTE_SIM": "memory=80GiB"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "pair-cost.md").read_text()
    cases = runpy.run_path(str(bench))["CASES"]
    for name in cases:
        row = "| `" + name.replace("|", "\\|") + "` |"
        assert written.count(row) == 2, row
    assert "could not be had" not in written
    assert "On the simulated device" in written
