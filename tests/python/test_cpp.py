"""The C++ tests: configured, built and run by this one test command.

``CENOTE_TEST_SANITIZE=address,undefined`` (or ``thread``) runs them under sanitizers.
"""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

TESTS = Path(__file__).parents[1] / "cpp"


def test_every_cpp_test_passes(
    cpp_tree: Any, run_in_tree: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    if not cpp_tree.has_googletest:
        pytest.skip("needs GoogleTest: apt-get install libgtest-dev, or conda install -c conda-forge gtest")
    listed = run_in_tree("ctest", "--test-dir", str(cpp_tree.folder), "--show-only=json-v1")
    programs = {Path(test["command"][0]).name for test in json.loads(listed.stdout)["tests"] if "command" in test}
    assert {program.removesuffix("_per_thread") for program in programs} == {
        source.stem for source in TESTS.glob("*_test.cpp")
    }
    assert "default_stream_test_per_thread" in programs

    report = tmp_path / "ctest.xml"
    done = run_in_tree(
        *("ctest", "--test-dir", str(cpp_tree.folder), "--output-junit", str(report)),
        *("--parallel", str(os.cpu_count() or 1), "--timeout", "600"),
    )
    failed = [
        f"{case.get('name')}\n{case.findtext('system-out') or case.get('status')}"
        for case in ElementTree.parse(report).getroot().iter("testcase")
        if case.get("status") == "fail"
    ]
    assert not failed, f"{len(failed)} C++ tests failed:\n\n" + "\n".join(failed)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
