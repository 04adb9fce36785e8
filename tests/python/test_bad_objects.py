"""Bad objects: frees of what must not be freed, what other code hands over, and what was closed or destroyed before."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cenote
from cenote import mr, registry, sim

KIB, MIB = 1024, 1024**2

BASES = ["cuda", "managed", "pinned", "system", "async", "sam_headroom:headroom=1MiB", "async_managed"]
POOLS = ["pool:initial=1MiB", "arena:size=1MiB", "fixed_size:block_size=4KiB,preallocate=4", "binning:min=8,max=12"]
ADAPTORS = ["statistics", "tracking", "limiting:limit=1MiB", "prefetch", "aligned:alignment=512", "thread_safe"]

BAD_FREES = """
    from cenote import driver, mr, sim
    {make}
    print(resource.specification)
    good, other = resource.allocate(1024), resource.allocate(1024)
    for unknown in (7, 256, good + 256, 2**64 - 256, 0x7f0000000000):
        for size in (0, 1, 1024, 2**64 - 1):
            resource.deallocate(unknown, size)
            resource.deallocate(unknown, size, alignment=4096)
    resource.deallocate(good, 1024, alignment=4096)
    resource.deallocate(good, 1024)
    resource.deallocate(good, 1024)
    resource.deallocate(other, 2**64 - 1)
    resource.deallocate(other, 5)
    resource.check()
    blocks = [resource.allocate(1024) for _ in range(3)]
    assert len({{*blocks}}) == 3 and all(block % 256 == 0 for block in blocks)
    for block in blocks:
        resource.deallocate(block, 1024)
    resource.check()
    driver.synchronize(0)
"""


def assert_reported_once(finished: subprocess.CompletedProcess[str]) -> None:
    reports = [line for line in finished.stderr.splitlines() if "freed" in line or "Free" in line]
    assert reports, "nothing was reported"
    assert len(reports) == len(set(reports))


@pytest.mark.parametrize("text", [*BASES, *POOLS, *ADAPTORS, *(f"{it} | pool:initial=1MiB" for it in ADAPTORS)])
def test_bad_frees_are_reported_once_and_ignored(
    text: str, run_fresh: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    finished = run_fresh(BAD_FREES.format(make=f"resource = mr.from_spec({text!r})"))
    print(finished.stdout, finished.stderr)
    assert_reported_once(finished)
