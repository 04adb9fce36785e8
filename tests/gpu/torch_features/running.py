"""Running features: each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from .features import ALONE, FEATURES, FRESH, INSTALL_THEMSELVES, OF_CENOTE, install
from .serving import TIMEOUT_SECONDS, Outcome, environment, run_forked


def run_one(allocator: str, name: str) -> tuple[bool, str]:
    """Run a feature in a process of its own: whether it passed, and what it returned or why it failed."""
    try:
        outcome = None if name in FRESH else run_forked(allocator, name)
        outcome = outcome or run_fresh(allocator, name)
    except (subprocess.TimeoutExpired, RuntimeError) as error:
        return False, str(error)
    if outcome["status"] != 0:
        return False, f"exit status {outcome['status']}: {outcome['noise'][-1500:]}"
    return True, next((line[7:] for line in outcome["output"].splitlines() if line.startswith("RESULT ")), "")


def run_fresh(allocator: str, name: str) -> Outcome:
    """Run a feature in a new process, which imports PyTorch itself."""
    command = [sys.executable, "-m", "torch_features", allocator, name]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=environment(), check=False
    )
    return {"status": done.returncode, "output": done.stdout, "noise": done.stderr}


def run_here(allocator: str, name: str) -> None:
    """Run a feature in this process, and print what it returned."""
    os.environ["TORCH_FEATURES_ALLOCATOR"] = allocator
    if name not in INSTALL_THEMSELVES:
        install(allocator)
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
