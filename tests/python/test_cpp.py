"""The C++ tests: configured, built and run by this one test command.

``CENOTE_TEST_SANITIZE=address,undefined`` (or ``thread``) runs them under sanitizers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from cpp_build import run_ctest

TESTS = Path(__file__).parents[1] / "cpp"


def test_every_cpp_test_passes(
    cpp_tree: Any, run_in_tree: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    if not cpp_tree.has_googletest:
        pytest.skip("needs GoogleTest: apt-get install libgtest-dev, or conda install -c conda-forge gtest")
    listed = run_in_tree("ctest", "--test-dir", str(cpp_tree.folder), "--show-only=json-v1")
    programs = {Path(test["command"][0]).name for test in json.loads(listed.stdout)["tests"] if "command" in test}
    assert {program.removesuffix("_per_thread") for program in programs} == {
        source.stem for source in TESTS.rglob("*_test.cpp")
    }
    per_thread = {program for program in programs if program.endswith("_per_thread")}
    assert {"default_stream_test_per_thread", "resource_conformance_test_per_thread"} <= per_thread

    run_ctest(cpp_tree.folder, tmp_path / "ctest.xml")
