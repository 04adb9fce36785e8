"""Where and with what a run was made, as far as it matters to its figures."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

import cenote
from cenote import driver


def describe_machine() -> dict[str, str]:
    """Date, device, versions and processor, as text."""
    version = driver.version()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "device": driver.device_name(0),
        "driver": _first_line("/sys/module/nvidia/version") or "none",
        "CUDA of the driver": f"{version // 1000}.{version % 1000 // 10}",
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "load before": f"{os.getloadavg()[0]:.1f}",
        "Python": platform.python_version(),
        "cenote": cenote.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
