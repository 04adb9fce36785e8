"""The C++ tests: configured, built and run by this one test command.

``CENOTE_TEST_SANITIZE=address,undefined`` (or ``thread``) runs them under sanitizers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from cpp_build import ROOT, run_build, run_ctest

TESTS = ROOT / "tests" / "cpp"
CORE = ROOT / "core" / "cpp" / "cenote"
FOLDERS = {source.parent for source in TESTS.rglob("*_test.cpp")}
TEST_MACRO = re.compile(r"^(?:TEST|TEST_F|TEST_P|TYPED_TEST)\((\w+),\s*(\w+)\)", re.MULTILINE)


def program_of(folder: Path) -> str:
    """The name of the program that is made of the test files of a folder."""
    return "_".join(folder.relative_to(TESTS).parts)


def defined_in(source: Path, listed: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Suite and name of each test that a file defines. One, `is_there`, is for where headers of others are missing."""
    found = TEST_MACRO.findall(source.read_text())
    assert len(found) == len(set(found)), source
    if absent := {(suite, name) for suite, name in found if name == "is_there"}:
        return absent if absent <= listed else set(found) - absent
    return set(found)


def listed_in(listing: str) -> set[tuple[str, str]]:
    """The same of a program's --gtest_list_tests, whatever the parameters and types that each runs with."""
    found, suite = set(), ""
    for line in listing.splitlines():
        name = line.partition("#")[0].strip()
        if line.startswith(" "):
            found.add((suite, name.partition("/")[0]))
        else:  # as in "suite.", "instance/suite." and, of a type, "suite/0."
            suite = next(part for part in reversed(name.removesuffix(".").split("/")) if not part.isdigit())
    return found


@pytest.fixture
def programs(cpp_tree: Any, run_in_tree: Callable[..., CompletedProcess[str]]) -> dict[str, Path]:
    """Every program that ctest runs, by its name."""
    if not cpp_tree.has_googletest:
        pytest.skip("needs GoogleTest: apt-get install libgtest-dev, or conda install -c conda-forge gtest")
    listed = json.loads(run_in_tree("ctest", "--test-dir", str(cpp_tree.folder), "--show-only=json-v1").stdout)
    paths = {Path(test["command"][0]) for test in listed["tests"] if "command" in test}
    return {path.name: path for path in paths}


def test_folders_of_the_tests_are_those_of_the_core() -> None:
    of_the_core = {path.name for path in CORE.iterdir() if path.is_dir()}
    assert {path.name for path in TESTS.iterdir() if path.is_dir()} == of_the_core | {"sim", "conformance", "support"}


def test_every_test_of_every_folder_is_in_its_program(programs: dict[str, Path]) -> None:
    assert programs.keys() == {program_of(folder) for folder in FOLDERS} | {"conformance_per_thread"}
    for folder in FOLDERS:
        listed = listed_in(run_build(str(programs[program_of(folder)]), "--gtest_list_tests").stdout)
        assert listed == set().union(*(defined_in(source, listed) for source in folder.glob("*_test.cpp")))


def test_both_kinds_of_default_stream_are_tested_alike(programs: dict[str, Path]) -> None:
    kinds = (programs["conformance"], programs["conformance_per_thread"])
    one, other = (run_build(str(program), "--gtest_list_tests").stdout for program in kinds)
    assert one == other != ""


def test_every_cpp_test_passes(cpp_tree: Any, programs: dict[str, Path], tmp_path: Path) -> None:
    assert programs
    run_ctest(cpp_tree.folder, tmp_path / "ctest.xml")
