"""The table of behaviours in docs/development.md: each row names files of this tree, and a test that is in one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "development.md"
ROW = re.compile(r"^\| (.+?) \| `([^`]+)` \| `([^`]+)`: `(\w+)` \|$", re.MULTILINE)
ROWS = ROW.findall(PAGE.read_text())


def test_the_table_was_found() -> None:
    assert len(ROWS) >= 20


@pytest.mark.parametrize(("behaviour", "place", "source", "test"), ROWS, ids=[row[0] for row in ROWS])
def test_behaviour_has_its_place_and_its_test(behaviour: str, place: str, source: str, test: str) -> None:
    assert (ROOT / place).is_file(), place
    assert re.search(rf"(?:^TEST\w*\(\w+,\s*|^def ){test}\b", (ROOT / source).read_text(), re.MULTILINE), test
