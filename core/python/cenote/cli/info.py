"""``cenote info``: the driver, the devices and the frameworks that are there, and what the others need."""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import asdict
from typing import Any

import cenote
from cenote._doors import DOORS, Door
from cenote.cli.environment import variables
from cenote.cli.terminal import Terminal
from cenote.units import format_bytes

RESOURCE_VARIABLE = "CENOTE_RESOURCE"

_VIRTUAL_MEMORY_SUPPORTED = 102  # CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED

_ONE_PAGE_OF_A_RANGE = (
    "UCX, NIXL, MPI and GPUDirect ask the driver about addresses, and see one page of what a pool that maps pages "
    "hands out: take 'pool | cuda' for them, or 'virtual', whose blocks are a page each."
)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Run the command.

    Parameters
    ----------
    args : argparse.Namespace
        ``json``: whether to write JSON.
    terminal : Terminal
        Where to report.

    Returns
    -------
    int
        The exit status: 2 if an environment variable is wrong.
    """
    facts = collect()
    if args.json:
        print(json.dumps(facts, indent=2))
    else:
        _show(terminal, facts)
    return 2 if any(variable["error"] for variable in facts["environment"]) else 0


def collect() -> dict[str, Any]:
    """Collect what there is. Imports no framework.

    Returns
    -------
    dict
        ``cenote`` and ``python`` (versions), ``driver``, ``environment``, ``devices`` and ``frameworks``. The keys are
        stable, sizes are in bytes, and what is unknown or missing is None.
    """
    driver = _driver()
    environment = [asdict(variable) for variable in variables(driver["error"])]
    wrong = {variable["name"]: variable["error"] for variable in environment}
    return {
        "cenote": cenote.__version__,
        "python": platform.python_version(),
        "driver": driver,
        "environment": environment,
        "devices": [_device(index, wrong.get(RESOURCE_VARIABLE)) for index in range(driver["devices"])],
        "frameworks": [_framework(door) for door in DOORS],
    }


def _driver() -> dict[str, Any]:
    try:
        version = cenote.driver.version()
        return {
            "available": True,
            "simulated": cenote.driver.is_simulated(),
            "library": cenote.driver.library(),
            "version": f"{version // 1000}.{version % 1000 // 10}",
            "devices": cenote.driver.device_count(),
            "error": None,
        }
    except cenote.CudaError as error:
        unknown = dict.fromkeys(("simulated", "library", "version"))
        return {"available": False, **unknown, "devices": 0, "error": str(error)}


def _device(index: int, wrong_resource: str | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"index": index, "name": cenote.driver.device_name(index)}
    facts["compute_capability"] = list(cenote.driver.compute_capability(index))
    facts["virtual_memory"] = bool(cenote.driver.device_attribute(_VIRTUAL_MEMORY_SUPPORTED, index))
    facts.update(dict.fromkeys(("free_bytes", "total_bytes", "resource", "error")))
    try:
        facts["free_bytes"], facts["total_bytes"] = cenote.driver.memory_info(index)
        facts["resource"] = _resource(index, wrong_resource)
        if facts["resource"] is None:
            facts["error"] = f"{RESOURCE_VARIABLE}: {wrong_resource}"
    except cenote.CudaError as error:  # a device that others use up, or that is closed to this process
        facts["error"] = str(error)
    return facts


def _resource(index: int, wrong_resource: str | None) -> str | None:
    """Name the current resource; one that is not made yet is not made just to be named, as a pool takes memory.

    None if there is none and the variable that says what to make is wrong.
    """
    current = cenote.registry.find_per_device_resource(index)
    if current is not None:
        return current.specification
    return None if wrong_resource is not None else cenote.registry.default_specification()


def _framework(door: Door) -> dict[str, Any]:
    found = door.version() if door.is_there() else None
    version, distribution = found or (None, None)
    return {
        "name": door.module,
        "version": version,
        "distribution": distribution,
        "needs": door.needs,
        "way": door.way,
    }


def _show(terminal: Terminal, facts: dict[str, Any]) -> None:
    terminal.line(f"cenote {facts['cenote']}, Python {facts['python']}", "bold")
    driver = facts["driver"]
    if driver["available"]:
        kind = "simulated driver" if driver["simulated"] else "driver"
        terminal.line(f"CUDA {driver['version']} {kind}: {driver['library']}")
    else:
        terminal.line(f"No driver: {driver['error']}", "yellow")
    terminal.line()
    if facts["environment"]:
        rows = [(each["name"], each["value"], each["error"] or "") for each in facts["environment"]]
        terminal.table("Environment", ("", "value", "what is wrong"), rows)
    for device in facts["devices"]:
        _show_device(terminal, device)
    if any(device["virtual_memory"] for device in facts["devices"]):
        terminal.line(_ONE_PAGE_OF_A_RANGE)
        terminal.line()
    rows = [
        (each["name"], each["version"] or "not installed", each["way"] if each["version"] else each["needs"])
        for each in facts["frameworks"]
    ]
    terminal.table("Doors", ("", "version", "onto cenote by"), rows)


def _show_device(terminal: Terminal, device: dict[str, Any]) -> None:
    major, minor = device["compute_capability"]
    rows = [("compute capability", f"{major}.{minor}")]
    if device["total_bytes"] is not None:
        rows.append(("memory", f"{format_bytes(device['free_bytes'])} free of {format_bytes(device['total_bytes'])}"))
    pages = "maps pages" if device["virtual_memory"] else "takes chunks, as the device has no virtual memory"
    rows.append(("a pool", pages))
    if device["resource"] is not None:
        rows.append(("current resource", device["resource"]))
    if device["error"]:
        rows.append(("error", device["error"]))
    terminal.table(f"Device {device['index']}: {device['name']}", ("", ""), rows)
