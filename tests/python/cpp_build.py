"""Builds of the core and its C++ tests outside of any package, and how their tests are run."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 1800


@dataclass(frozen=True)
class CppTree:
    """A build of the core outside of any package, with its tests where GoogleTest is there."""

    folder: Path
    has_googletest: bool


def build_tool(name: str) -> str:
    """The path of a program that pip installs, whether or not its environment is the active one."""
    found = shutil.which(name, path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
    if found is None:
        pytest.fail(f"{name} is not there: pip install 'cenote[test]'", pytrace=False)
    return found


def run_build(*command: str) -> subprocess.CompletedProcess[str]:
    # Compilers and CMake look at the environment; what is set for the simulated device is not theirs.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CENOTE_")}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=environment, check=False
    )


def build_cpp_tree(name: str, sanitize: str, targets: Sequence[str], *settings: str) -> CppTree:
    """Builds `targets` of the core and its tests in a folder that the next run uses again.

    With all checks, unless `settings` say otherwise. A second process that runs tests waits, and finds the tree built.
    """
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _build_cpp_tree(name, sanitize, targets, *settings)


def _build_cpp_tree(name: str, sanitize: str, targets: Sequence[str], *settings: str) -> CppTree:
    if not (ROOT / "core" / "CMakeLists.txt").is_file():
        pytest.fail(f"the sources of the core are missing: there is no {ROOT}/core", pytrace=False)
    folder = ROOT / "build" / "-".join([name, *sanitize.replace(",", " ").split()])
    cmake, ninja = build_tool("cmake"), build_tool("ninja")

    def configure(tests: str) -> subprocess.CompletedProcess[str]:
        return run_build(
            *(cmake, "-S", str(ROOT / "core"), "-B", str(folder), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"),
            "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON",
            *(f"-DCENOTE_TESTS={tests}", "-DCENOTE_CHECK=2", "-DCMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit=ON"),
            *("-DCMAKE_BUILD_TYPE=Debug", f"-DCENOTE_SANITIZE={sanitize}", *settings),
            *(f"-DPython_EXECUTABLE={sys.executable}", "-DCENOTE_CUDA_INCLUDE="),  # empty: look for the headers anew
        )

    configured = configure("ON")
    has_googletest = "GTest" not in configured.stderr
    if not has_googletest:
        configured = configure("OFF")
        targets = ("all",)
    if configured.returncode != 0:
        pytest.fail(f"CMake failed:\n{configured.stdout[-2000:]}\n{configured.stderr[-4000:]}", pytrace=False)
    jobs = str(os.cpu_count() or 1)
    built = run_build(cmake, "--build", str(folder), "--target", *targets, "--parallel", jobs)
    if built.returncode != 0:
        pytest.fail(f"the build failed:\n{built.stdout[-8000:]}\n{built.stderr[-2000:]}", pytrace=False)
    return CppTree(folder, has_googletest)


def run_ctest(folder: Path, report: Path, *selection: str) -> None:
    """Runs C++ tests of a tree, and fails with what those that failed have printed."""
    done = run_build(
        *(build_tool("ctest"), "--test-dir", str(folder), "--output-junit", str(report), *selection),
        *("--no-tests=error", "--parallel", str(os.cpu_count() or 1), "--timeout", "600"),
    )
    failed = [
        f"{case.get('name')}\n{case.findtext('system-out') or case.get('status')}"
        for case in ElementTree.parse(report).getroot().iter("testcase")
        if case.get("status") == "fail"
    ]
    assert not failed, f"{len(failed)} C++ tests failed:\n\n" + "\n".join(failed)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
