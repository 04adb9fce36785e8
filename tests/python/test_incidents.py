"""The first advice, applied to a fresh run of a workload that ran out of memory, makes it pass; none is false."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from incidents import CAUSES

PROGRAM = Path(__file__).with_name("incidents.py")

# What may be named first. Where more memory is needed by less than what rounding to pages costs, a resource may help.
RIGHT = {
    "leak": {"leak"},
    "cache": {"cache"},
    "process": {"process"},
    "holes": {"resource"},
    "limit": {"limit"},
    "need": {"memory", "resource"},
    "pin": {"pin"},
    "graph": {"graph"},
    "stream": {"stream"},
    "budget": {"limit"},
}


def run(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def outcome(seed: int) -> tuple[dict[str, Any], str]:
    """What was told of the incident of a seed, and what is wrong with it; empty if nothing is."""
    told = run(str(seed))
    assert told["advice"] is not None, f"seed {seed} ({told['cause']}): the workload passes"
    if not told["advice"]:
        return told, "no advice"
    first = told["advice"][0]
    if first["kind"] not in RIGHT[told["cause"]]:
        return told, f"{first['kind']} is named"
    return told, "" if run(str(seed), json.dumps(first))["passes"] else f"a fresh run fails: {first['text']}"


def check(seeds: range, most_wrong: int) -> None:
    wrong = []
    for seed in seeds:
        told, what = outcome(seed)
        if what:
            wrong.append(f"seed {seed} ({told['cause']}): {what}")
        largest = max(told["tags"], key=lambda tag: told["tags"][tag])
        assert largest in {"the work", "leaky cache"}
        assert told["holder"] == ("torch" if largest == "the work" else "library"), told
    assert len(wrong) <= most_wrong, "\n".join(wrong)
    assert not [each for each in wrong if "is named" in each], "\n".join(wrong)


@pytest.mark.slow
def test_first_advice_helps_in_an_incident_of_each_cause() -> None:
    check(range(len(CAUSES)), 0)


@pytest.mark.long
def test_first_advice_helps_in_nine_of_ten_of_sixty_incidents() -> None:
    check(range(60), 6)
