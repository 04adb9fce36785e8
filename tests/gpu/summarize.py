"""Prints what docs/results/gpu-tests.md holds: date, device, versions, and each test with its outcome.

Tests with many rows, such as the conformance suite's, are one line each, with the number of their rows.
"""

from __future__ import annotations

import datetime
import platform
import sys
import xml.etree.ElementTree as ElementTree
from importlib.metadata import PackageNotFoundError, version

import cenote.driver as driver

PACKAGES = ("cenote", "torch", "cupy-cuda13x", "numba", "numba-cuda", "cuda-core", "numpy")


def installed(package: str) -> str:
    """A package's version, or that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


MANY_ROWS = 20


def outcome(case: ElementTree.Element) -> str:
    """passed, failed, or skipped."""
    if case.find("failure") is not None or case.find("error") is not None:
        return "**failed**"
    return "skipped" if case.find("skipped") is not None else "passed"


def main() -> None:
    """Summarize the JUnit file named on the command line, as Markdown."""
    cases = list(ElementTree.parse(sys.argv[1]).iter("testcase"))
    outcomes = [outcome(case) for case in cases]
    number = driver.version()
    today = datetime.datetime.now(datetime.UTC).date()
    print("# Tests on a GPU\n")
    print("Written by `tests/gpu/run.sh`.\n")
    print("| | |\n|---|---|")
    print(f"| date | {today} |")
    print(f"| device | {driver.device_count()} × {driver.device_name(0)} |")
    print(f"| driver | CUDA {number // 1000}.{number % 1000 // 10} |")
    print(f"| Python | {platform.python_version()} |")
    for package in PACKAGES:
        print(f"| {package} | {installed(package)} |")
    counts = ", ".join(f"{outcomes.count(kind)} {kind.strip('*')}" for kind in ("passed", "**failed**", "skipped"))
    print(f"| tests | {counts} |\n")
    print("| test | outcome | seconds |\n|---|---|---|")
    rows: dict[str, list[tuple[str, str, float]]] = {}
    for case, result in zip(cases, outcomes, strict=True):
        test, bracket, parameter = case.attrib["name"].removeprefix("test_").partition("[")
        row = (bracket + parameter).replace("|", "\\|"), result, float(case.attrib["time"])
        rows.setdefault(test.replace("_", " "), []).append(row)
    for name, cases_of_test in rows.items():
        if len(cases_of_test) <= MANY_ROWS:
            for parameter, result, seconds in cases_of_test:
                print(f"| {name}{parameter} | {result} | {seconds:.1f} |")
            continue
        results = [result for _, result, _ in cases_of_test]
        summary = ", ".join(f"{results.count(kind)} {kind}" for kind in dict.fromkeys(results))
        print(f"| {name} | {summary} | {sum(seconds for _, _, seconds in cases_of_test):.1f} |")


if __name__ == "__main__":
    main()
