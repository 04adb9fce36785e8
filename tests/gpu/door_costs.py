"""What an allocation and its free cost at each door: on the library's own memory, on cenote, on RMM where it is there.

    python door_costs.py [OUTPUT.json]

One process goes back and forth between them, so that all meet the same clocks and caches. Nanoseconds a pair: minima
and medians of many rounds. RMM is its pool over the driver's memory, by its own plugins, in Numba by its manager.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS = 20
CALLS = 500
SIZES = {"4 KB": 4000, "4 MiB": 4 << 20}


def doors() -> dict[str, tuple[dict[str, Callable[[], Any]], dict[str, Callable[[int], Any]]]]:
    """By the name of a call: how to choose whose memory it takes, and the call of a size."""
    found: dict[str, tuple[dict[str, Callable[[], Any]], dict[str, Callable[[int], Any]]]] = {}
    for make in (of_cupy, of_numba, of_cuda_core):
        try:
            found |= make()
        except ImportError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def rmm_pool() -> Any:
    import rmm

    if not hasattr(rmm_pool, "resource"):
        rmm_pool.resource = rmm.mr.PoolMemoryResource(rmm.mr.CudaMemoryResource(), 1 << 28, 1 << 30)
        rmm.mr.set_current_device_resource(rmm_pool.resource)
    return rmm


def has_rmm() -> bool:
    try:
        return hasattr(rmm_pool().mr, "PoolMemoryResource")
    except ImportError:
        return False


def of_cupy() -> dict[str, Any]:
    import cupy

    from cenote.allocators.cupy import cupy_allocator

    own = cupy.cuda.MemoryPool().malloc
    ways = {
        "own": lambda: cupy.cuda.set_allocator(own),
        "cenote": lambda: cupy.cuda.set_allocator(cupy_allocator),
    }
    if has_rmm():
        from rmm.allocators.cupy import rmm_cupy_allocator

        ways["rmm"] = lambda: cupy.cuda.set_allocator(rmm_cupy_allocator)
    return {"cupy.cuda.alloc": (ways, cupy.cuda.alloc)}


def of_numba() -> dict[str, Any]:
    from numba import cuda
    from numba.cuda.cudadrv.driver import NumbaCUDAMemoryManager

    from cenote.allocators.numba import CenoteNumbaManager, on_stream

    context = cuda.current_context()
    managers = {"own": NumbaCUDAMemoryManager(context=context), "cenote": CenoteNumbaManager(context=context)}
    if has_rmm():
        from rmm.allocators.numba import RMMNumbaManager

        managers["rmm"] = RMMNumbaManager(context=context)
    for manager in managers.values():
        manager.initialize()

    def choose(manager: Any) -> Callable[[], Any]:
        return lambda: setattr(context, "memory_manager", manager)

    stream = cuda.stream()

    def of_stream(size: int) -> Any:
        with on_stream(stream):
            return cuda.device_array(size, dtype="u1")

    ways = {name: choose(manager) for name, manager in managers.items()}
    return {
        "numba.cuda.device_array": (ways, lambda size: cuda.device_array(size, dtype="u1")),
        "numba.cuda.device_array, on_stream": ({"cenote": ways["cenote"]}, of_stream),
    }


def of_cuda_core() -> dict[str, Any]:
    from cuda.core import Device

    from cenote.allocators.cuda import CenoteMemoryResource

    device = Device(0)
    device.set_current()
    own, ours = device.memory_resource, CenoteMemoryResource()
    stream = device.create_stream()
    ways = {
        "own": lambda: setattr(device, "memory_resource", own),
        "cenote": lambda: setattr(device, "memory_resource", ours),
    }

    def allocate(size: int) -> None:
        device.allocate(size, stream=stream).close()

    return {"cuda.core Device.allocate": (ways, allocate)}


def time_of(call: Callable[[int], Any], size: int) -> float:
    """Give the nanoseconds of one pair, of many in a row."""
    for _ in range(20):
        call(size)
    began = time.perf_counter_ns()
    for _ in range(CALLS):
        call(size)
    return (time.perf_counter_ns() - began) / CALLS


def main() -> None:
    import cenote

    cenote.mr.set_current_device_resource(cenote.mr.from_spec("pool:max=4GiB"))
    measured = doors()
    times: dict[str, dict[str, list[float]]] = {}
    until, turn = time.monotonic() + SECONDS, 0
    while time.monotonic() < until:
        for name, (ways, call) in measured.items():
            order = list(ways) if turn % 2 else list(reversed(ways))
            for who in order:
                ways[who]()
                for label, size in SIZES.items():
                    each = times.setdefault(f"{name} {label}", {})
                    each.setdefault(who, []).append(time_of(call, size))
        turn += 1
    results = {}
    for name, by_owner in times.items():
        row = {who: [round(min(each)), round(statistics.median(each))] for who, each in by_owner.items()}
        results[name] = row
        print(f"{name:44}" + "".join(f"  {who} {best:6} ({median:6})" for who, (best, median) in row.items()))
    print(f"ns a pair, minimum (median) of {turn} rounds of {CALLS}")
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
