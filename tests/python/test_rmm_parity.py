"""``docs/results/rmm-names.md`` says what became of every name of RMM: each row is looked up, and no name lacks one."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import CompletedProcess

from cenote.compat.rmm_names import MODULES

TABLE = Path(__file__).parents[2] / "docs" / "results" / "rmm-names.md"
STATES = ("same", "more", "differs")


@dataclass(frozen=True)
class Row:
    name: str
    modules: list[str]
    members: list[str]
    own: str
    state: str

    def can_be_looked_up(self) -> bool:
        """Whether the framework that the name needs is there."""
        framework = re.match(r"cenote\.allocators\.(\w+)", self.own)
        return framework is None or importlib.util.find_spec(framework[1]) is not None


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def rows() -> list[Row]:
    found = []
    for line in TABLE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `") and len(cells) == 5:
            (name,), modules, members, (own,) = (quoted(cell) for cell in cells[:4])
            found.append(Row(name, modules, members, own, cells[4].partition(":")[0]))
    return found


def test_every_name_of_every_module_has_exactly_one_row_and_no_row_lacks_a_name() -> None:
    in_table = [(module, row.name) for row in rows() for module in row.modules]
    in_alias = [(module, name) for module, names in MODULES.items() for name in names]
    assert sorted(in_table) == sorted(in_alias)


def test_states_are_those_that_the_page_explains() -> None:
    text = TABLE.read_text()
    assert {row.state for row in rows()} == set(STATES)
    assert all(f"| {state} | " in text for state in STATES)


LOOK_UP = """
import cenote.compat.as_rmm
import importlib, pkgutil, types
problems = []
for row in ROWS:
    try:
        own = pkgutil.resolve_name(row["own"])
        for name in row["modules"]:
            theirs = getattr(importlib.import_module(name), row["name"])
            is_module = isinstance(theirs, types.ModuleType)
            if theirs is not own and not (is_module and theirs.__name__.startswith("rmm.")):
                problems.append(f"{name}.{row['name']} is {theirs!r}, not {own!r}")
            problems += [f"{name}.{row['name']} has no {m}" for m in row["members"]
                         if not hasattr(theirs, m) and m not in getattr(theirs, "__annotations__", {})]
    except Exception as error:
        problems.append(f"{row['name']}: {type(error).__name__}: {error}")
assert problems == [], "\\n".join(problems)
"""


def test_every_name_is_the_one_of_cenote_that_its_row_says_and_has_its_members(
    run_fresh: Callable[..., CompletedProcess[str]],
) -> None:
    looked_up = [row for row in rows() if row.can_be_looked_up()]
    assert len(looked_up) > 80
    run_fresh(f"ROWS = {json.dumps([asdict(row) for row in looked_up])}\n{LOOK_UP}")
