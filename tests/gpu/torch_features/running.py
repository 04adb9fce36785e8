"""Running features: each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .features import ALONE, FEATURES, INSTALL_THEMSELVES, OF_CENOTE, install

TIMEOUT_SECONDS = 100
FOLDER = Path(__file__).parents[1]


def run_one(allocator: str, name: str) -> tuple[bool, str]:
    """Run a feature in a process of its own: whether it passed, and what it returned or why it failed."""
    path = os.pathsep.join([str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"TORCH_FEATURES_ALLOCATOR": allocator, "PYTHONPATH": path}
    command = [sys.executable, "-m", "torch_features", allocator, name]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=environment, check=False
        )
    except subprocess.TimeoutExpired as error:
        return False, f"took too long: {(error.stderr or b'')[-300:]!r}"
    if done.returncode != 0:
        return False, f"exit status {done.returncode}: {done.stderr[-1500:]}"
    return True, next((line[7:] for line in done.stdout.splitlines() if line.startswith("RESULT ")), "")


def run_here(allocator: str, name: str) -> None:
    """Run a feature in this process, and print what it returned."""
    if name not in INSTALL_THEMSELVES:
        install(allocator, name)
    print("RESULT", repr(FEATURES[name]()))


def run_all(allocator: str, names: list[str]) -> int:
    """Run features, several at a time; give the number of those that failed."""
    names = names or [name for name in FEATURES if allocator == "cenote" or name not in OF_CENOTE]
    names.sort(key=lambda name: name in ALONE)
    together = sum(name not in ALONE for name in names)

    def run(name: str) -> bool:
        passed, text = run_one(allocator, name)
        print(f"{'ok  ' if passed else 'FAIL'} {allocator:6} {name} {text if not passed else text[:100]}", flush=True)
        return passed

    with ThreadPoolExecutor(min(14, os.cpu_count() or 1)) as workers:
        failed = sum(not passed for passed in workers.map(run, names[:together]))
    failed += sum(not run(name) for name in names[together:])
    print(f"{len(names) - failed} of {len(names)} work with {allocator}")
    return failed
