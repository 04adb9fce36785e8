"""docs/results/pytorch-own-tests.md: the tests of ours that it names exist, and its figures are those of its lists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "results" / "pytorch-own-tests.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n?)*)", PAGE, re.MULTILINE))
NO_TESTS = {"PYTORCH_ALLOC_CONF", "empty_cache", "graph_capture_record_stream_reuse"}
"""Other names of PyTorch's in the second column."""


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def rows(section: str) -> list[tuple[str, str]]:
    return re.findall(r"^\| (`.+?) \| (.+) \|$", SECTIONS[section], re.MULTILINE)


COUNTS = re.findall(r"^\| (.+?) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("row", COUNTS, ids=lambda row: row[0])
def test_counts_are_those_of_the_lists(row: tuple[str, ...]) -> None:
    title, *figures = row
    tests, *parts = map(int, figures)
    assert tests == sum(parts)
    listed = {name: sum(len(quoted(theirs)) for theirs, _ in rows(name)) for name in SECTIONS}
    assert tests == (sum(listed.values()) if title == "all" else listed[title])


def test_tests_of_ours_exist() -> None:
    files = [path for folder in ("gpu", "python") for path in (ROOT / "tests" / folder).rglob("*.py")]
    sources = "".join(path.read_text(encoding="utf-8") for path in files)
    ours = {name for section in SECTIONS for _, what in rows(section) for name in quoted(what)} - NO_TESTS
    assert len(ours) > 50
    assert [name for name in sorted(ours) if not re.search(rf"^def {name}\b", sources, re.MULTILINE)] == []
