"""Who holds memory of a device beside cenote: other processes, and the caches of libraries in this one."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

from cenote._core.budget import device_uuid
from cenote.driver import is_simulated


def bytes_of_processes(device: int) -> tuple[int, int] | None:
    """Ask NVML what this process holds of a device and what all others do, where its Python package is installed.

    None where it does not tell, or does not know this process by its number, as in some containers: then nobody can say
    which of the processes is this one.
    """
    try:
        import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            held = _by_process(pynvml, _handle(pynvml, device))
        finally:
            with suppress(AttributeError):
                pynvml.nvmlShutdown()
    except Exception as error:  # whatever NVML lacks here, the account does without it
        if not is_simulated():  # whose devices it does not know
            print(f"cenote: NVML tells nothing of other processes: {error}", file=sys.stderr)
        return None
    own = held.pop(os.getpid(), None)
    return None if own is None else (own, sum(held.values()))


def _handle(pynvml: Any, device: int) -> Any:
    """Find a device by what it is called in every process: CUDA_VISIBLE_DEVICES gives it another number."""
    digits = device_uuid(device)
    uuid = "-".join([digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]])
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError:
        return pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")


def _by_process(pynvml: Any, handle: Any) -> dict[int, int]:
    """Give the bytes of each process; one that computes and draws is listed twice, with the same bytes."""
    held: dict[int, int] = {}
    for listed in (pynvml.nvmlDeviceGetComputeRunningProcesses, pynvml.nvmlDeviceGetGraphicsRunningProcesses):
        with suppress(pynvml.NVMLError):  # a MIG instance has no graphics
            held.update((each.pid, each.usedGpuMemory) for each in listed(handle) if each.usedGpuMemory is not None)
    return held


def bytes_of_libraries(device: int) -> dict[str, int]:
    """Ask the libraries that are loaded what their own allocators have taken of a device, by what to call it."""
    held = {}
    for name, ask in (("PyTorch's own allocator", _of_torch), ("CuPy's own pool", _of_cupy)):
        with suppress(Exception):  # of another version, or half imported: it is a part of what nobody tells
            if nbytes := ask(device):
                held[name] = nbytes
    return held


def _of_torch(device: int) -> int:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized() or torch.cuda.get_allocator_backend() == "pluggable":
        return 0
    return int(torch.cuda.memory_reserved(device))


def _of_cupy(device: int) -> int:
    cupy = sys.modules.get("cupy")
    if cupy is None:
        return 0
    with cupy.cuda.Device(device):
        return int(cupy.get_default_memory_pool().total_bytes())
