"""Prints a run of the tests on a GPU as a page: date, device, versions, and each test with its outcome.

Tests with many rows, such as the conformance suite's, are one line each, with the number of their rows. tests.xml and
alone.xml are pytest's; the others are GoogleTest's, one for each suite of a program: conformance.of_container.xml.
Their tests go by the program's name as well.
"""

from __future__ import annotations

import datetime
import platform
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cenote.driver as driver

PACKAGES = ("cenote", "torch", "cupy-cuda13x", "numba", "numba-cuda", "cuda-core", "numpy")


def installed(package: str) -> str:
    """A package's version, or that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


MANY_ROWS = 20

OF_PYTEST = ("tests.xml", "alone.xml")


def outcome(case: ElementTree.Element) -> str:
    """passed, failed, or skipped."""
    if case.find("failure") is not None or case.find("error") is not None:
        return "**failed**"
    return "skipped" if case.find("skipped") is not None else "passed"


def reason(case: ElementTree.Element) -> str:
    """Why it was skipped; GoogleTest says the place in a line of its own before."""
    words = case.find("skipped").get("message", "").strip()
    return words.splitlines()[-1] if words else "no reason given"


def row_of(case: ElementTree.Element, program: str) -> tuple[str, str]:
    """The test's name in words, and which row of its table this is."""
    if not program:
        name = re.sub(r"@\w+$", "", case.attrib["name"])  # the group that pytest-xdist has put behind it
        test, bracket, parameter = name.removeprefix("test_").partition("[")
    else:
        test, bracket, parameter = case.attrib["name"].partition("/")
        suite = case.attrib["classname"].rpartition("/")[2]
        test = f"{program}: {suite} {test}"
    return test.replace("_", " "), (bracket + parameter).replace("|", "\\|")


def main() -> None:
    """Summarize the JUnit files named on the command line, as Markdown."""
    cases = []
    for file in sys.argv[1:]:
        name = Path(file).name
        program = "" if name in OF_PYTEST else name.partition(".")[0]
        cases += [(case, program) for case in ElementTree.parse(file).iter("testcase")]
    outcomes = [outcome(case) for case, _ in cases]
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
    print(f"| tests | {counts} |")
    why = Counter(reason(case) for (case, _), result in zip(cases, outcomes, strict=True) if result == "skipped")
    if why:
        print("| skipped | " + "; ".join(f"{count}: {words}" for words, count in why.most_common()) + " |")
    print()
    print("| test | outcome | seconds |\n|---|---|---|")
    rows: dict[str, list[tuple[str, str, float]]] = {}
    for (case, program), result in zip(cases, outcomes, strict=True):
        test, parameter = row_of(case, program)
        rows.setdefault(test, []).append((parameter, result, float(case.attrib["time"])))
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
