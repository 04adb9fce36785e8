"""C++ projects that use cenote: by the installed wheel, by CMake's install, and as a part of another project."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

import cenote

ROOT = Path(__file__).parents[2]
PAGE = "docs/cpp/index.md"
PACKAGE = Path(cenote.__file__).parent
FILES = runpy.run_path(str(ROOT / "docs" / "snippets.py"))["files"](PAGE)

BuildProject = Callable[..., None]


def run_water(build: Path) -> str:
    """What the project's program prints on the simulated device, which conftest has chosen."""
    return subprocess.run([build / "water"], capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project that the page shows, in a folder outside of the tree."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def change(listing: Path, old: str, new: str) -> None:
    text = listing.read_text()
    assert old in text
    listing.write_text(text.replace(old, new))


def test_project_on_the_page_is_no_longer_than_twenty_lines() -> None:
    assert set(FILES) == {"CMakeLists.txt", "water.cpp"}
    assert sum(len(text.splitlines()) for text in FILES.values()) <= 20


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_project_builds_and_runs_with_the_installed_package_alone(
    project: Path, compiler: str, build_project: BuildProject
) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    assert not PACKAGE.is_relative_to(ROOT / "core")
    warnings = "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wpedantic -Werror"
    build_project(project, f"-Dcenote_ROOT={PACKAGE}", f"-DCMAKE_CXX_COMPILER={compiler}", warnings)
    assert f"cenote_DIR:PATH={PACKAGE}/lib/cmake/cenote" in (project / "build" / "CMakeCache.txt").read_text()
    assert run_water(project / "build") == "1024 bytes of 'async'\n"


def test_package_of_another_version_is_not_taken(project: Path, build_project: BuildProject) -> None:
    change(project / "CMakeLists.txt", "find_package(cenote ", "find_package(cenote 99.0 ")
    with pytest.raises(AssertionError, match="The version found is not compatible with the version requested"):
        build_project(project, f"-Dcenote_ROOT={PACKAGE}")


def test_project_finds_what_cmake_alone_has_installed(
    project: Path, build_project: BuildProject, cpp_tree: Any, run_in_tree: Callable[..., CompletedProcess[str]]
) -> None:
    prefix = project / "prefix"
    installed = run_in_tree("cmake", "--install", str(cpp_tree.folder), "--prefix", str(prefix))
    assert installed.returncode == 0, installed.stderr
    flags = f"-fsanitize={os.environ['CENOTE_TEST_SANITIZE']}" if os.environ.get("CENOTE_TEST_SANITIZE") else ""
    build_project(project, f"-Dcenote_ROOT={prefix}", f"-DCMAKE_CXX_FLAGS={flags}")
    assert f"cenote_DIR:PATH={prefix}/lib/cmake/cenote" in (project / "build" / "CMakeCache.txt").read_text()
    assert run_water(project / "build") == "1024 bytes of 'async'\n"


def test_project_holds_cenote_as_a_part_of_itself(project_with_cenote_inside: Path) -> None:
    build = project_with_cenote_inside / "build"
    assert run_water(build) == "1024 bytes of 'async'\n"
    assert {library.name for library in build.rglob("*.so")} == {"libcenote.so", "libcenote_sim.so"}
