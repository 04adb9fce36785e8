"""Whose the used bytes of each device are, where PyTorch, CuPy, Numba and NCCL work in one process, beside another one.

    python tests/gpu/account.py [OUTPUT.json]

All three allocate from cenote; NCCL works over all devices, and another process holds memory of the first one. What is
missing is left out and named, so that this runs on the simulated device as well. It fails if the parts do not add up to
the used bytes that the driver tells; the remainder, which nobody tells of, is printed.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cenote

MIB = 1 << 20
REMAINDER = "the rest"

OTHER_PROCESS = """
import sys
import cenote
buffer = cenote.DeviceBuffer(size=256 << 20)
print("holds", flush=True)
sys.stdin.read()
"""


def of_cenote(device: int) -> Any:
    with cenote.tag("cenote"):
        return cenote.DeviceBuffer(size=64 * MIB) if device == 0 else None


def of_torch(device: int) -> Any:
    import torch

    with cenote.tag("torch"):
        return torch.ones(300 * MIB, dtype=torch.uint8, device=f"cuda:{device}")


def of_cupy(device: int) -> Any:
    import cupy

    with cupy.cuda.Device(device), cenote.tag("cupy"):
        return cupy.ones(200 * MIB, dtype="u1")


def of_numba(device: int) -> Any:
    from numba import cuda

    with cuda.gpus[device], cenote.tag("numba"):
        return cuda.device_array(100 * MIB, dtype="u1")


def of_nccl(device: int) -> Any:
    """Sum over all devices, which makes NCCL's communicators and their buffers."""
    if device:
        return None
    import torch

    parts = [torch.ones(MIB, device=f"cuda:{each}") for each in range(torch.cuda.device_count())]
    torch.cuda.nccl.all_reduce(parts)
    for each in range(torch.cuda.device_count()):
        torch.cuda.synchronize(each)
    assert int(parts[0][0]) == len(parts)
    return parts


def account_of(device: int) -> dict[str, Any]:
    """What is told of a device; AssertionError if the parts are not all of it."""
    told = cenote.explain(device=device)
    total = cenote.driver.memory_info(device)[1]
    parts = {part.name: part.bytes for part in told.account}
    assert sum(parts.values()) == total, f"{sum(parts.values()):,} of {total:,} bytes"
    free = parts.pop("free")
    clients = {each.name: each.bytes for each in told.holders if each.kind == "client"}
    assert parts.get("held by clients", 0) == sum(clients.values())
    return {"used": total - free, "parts": parts, "clients": clients}


def show(device: int, account: dict[str, Any]) -> None:
    print(f"\ndevice {device}: {account['used']:,} bytes are used")
    for name, nbytes in account["parts"].items():
        print(f"  {nbytes:>16,}  {name}")
        if name == "held by clients":
            for client, held in account["clients"].items():
                print(f"  {held:>16,}    {client}")
    remainder = sum(nbytes for name, nbytes in account["parts"].items() if name.startswith(REMAINDER))
    print(f"  {sum(account['parts'].values()):>16,}  in all; remainder {remainder:,}")


def main() -> None:
    cenote.install("pool")
    doors: dict[str, Callable[[int], Any]] = {
        "cenote": of_cenote,
        "torch": of_torch,
        "cupy": of_cupy,
        "numba": of_numba,
        "NCCL": of_nccl,
    }
    kept = []
    for name, make in doors.items():
        for device in range(cenote.driver.device_count()):
            try:
                kept.append(make(device))
            except ImportError as error:
                print(f"left out: {name}: {error}", file=sys.stderr)
                break
    if importlib.util.find_spec("pynvml") is None:
        print("left out: other processes: pip install nvidia-ml-py", file=sys.stderr)
    other = subprocess.Popen([sys.executable, "-c", OTHER_PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdin is not None and other.stdout is not None
    try:
        assert other.stdout.readline() == b"holds\n"
        accounts = {device: account_of(device) for device in range(cenote.driver.device_count())}
    finally:
        other.stdin.close()
        other.wait()
    for device, account in accounts.items():
        show(device, account)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(accounts, indent=2))


if __name__ == "__main__":
    main()
