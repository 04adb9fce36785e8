"""How fast blocks of another process, opened once, go from device to device, beside bare peer copies in the same run.

    python peer_rates.py        16 blocks of 64 MiB in flight, from device 0 of one process to device 1 of another

Prints what the first transfer costs, opening included, and the medians of rounds of both kinds in turn, in GB/s.
"""

from __future__ import annotations

import ctypes
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import cenote
from cenote import mr

MIB = 1 << 20
BYTES = 64 * MIB
BLOCKS = 16
ROUNDS = 21

OWNER = f"""
import sys
import cenote
from cenote import mr
pool = mr.from_spec("pool | virtual", 0)
blocks = []
for i in range({BLOCKS}):
    blocks.append(cenote.DeviceBuffer(size={BYTES}, mr=pool))
    blocks[-1].copy_from_host(bytes([i + 1]) * {BYTES})
    print(blocks[-1].share(), flush=True)
sys.stdin.read()
"""


def seconds(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def bare_copies(streams: list[cenote.Stream]) -> Callable[[], None]:
    """Peer copies between memory that the driver itself has made on both devices."""
    driver = ctypes.CDLL("libcuda.so.1")
    pointers: list[list[ctypes.c_uint64]] = []
    contexts = []
    for device in (0, 1):
        context = ctypes.c_void_p()
        assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
        assert driver.cuCtxPushCurrent_v2(context) == 0
        made = [ctypes.c_uint64() for _ in range(BLOCKS)]
        for pointer in made:
            assert driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(BYTES)) == 0
        assert driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p())) == 0
        pointers.append(made)
        contexts.append(context)
    for user, owner in ((contexts[0], contexts[1]), (contexts[1], contexts[0])):
        assert driver.cuCtxPushCurrent_v2(user) == 0
        assert driver.cuCtxEnablePeerAccess(owner, 0) in (0, 704)  # it may be enabled already
        assert driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p())) == 0

    def copy() -> None:
        for source, target, stream in zip(*pointers, streams, strict=True):
            handle = ctypes.c_void_p(stream.__cuda_stream__()[1])
            size = ctypes.c_size_t(BYTES)
            assert driver.cuMemcpyPeerAsync(target, contexts[1], source, contexts[0], size, handle) == 0
        for stream in streams:
            stream.synchronize()

    return copy


def main() -> int:
    if cenote.driver.device_count() < 2:
        print("two devices are needed")
        return 1
    cenote.driver.set_device(1)
    streams = [cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING) for _ in range(BLOCKS)]
    pool = mr.from_spec("pool:initial=1GiB | virtual", 1)
    mine = [cenote.DeviceBuffer(size=BYTES, stream=stream, mr=pool) for stream in streams]
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        handles = [owner.stdout.readline().strip() for _ in range(BLOCKS)]
        theirs = []

        def first() -> None:
            theirs.append(cenote.open_shared(handles[0], stream=streams[0]))
            mine[0].copy_from_device(theirs[0], stream=streams[0])
            streams[0].synchronize()

        cost = seconds(first)
        theirs += [cenote.open_shared(handle, stream=stream) for handle, stream in zip(handles, streams, strict=True)][
            1:
        ]

        def ours() -> None:
            for target, source, stream in zip(mine, theirs, streams, strict=True):
                target.copy_from_device(source, stream=stream)
            for stream in streams:
                stream.synchronize()

        bare = bare_copies(streams)
        both: dict[str, list[float]] = {"ours": [], "bare": []}
        for number in range(-3, ROUNDS):
            for name, call in (("ours", ours), ("bare", bare)) if number % 2 else (("bare", bare), ("ours", ours)):
                took = seconds(call)
                if number >= 0:
                    both[name].append(BLOCKS * BYTES / took / 1e9)
        for i, buffer in enumerate(mine):
            assert buffer.tobytes() == bytes([i + 1]) * BYTES, i
        theirs.clear()
        assert owner.stdin is not None
        owner.stdin.close()
    rates = {name: statistics.median(each) for name, each in both.items()}
    print(
        f"{BLOCKS} blocks of 64 MiB in flight: {rates['ours']:.1f} GB/s, bare peer copies {rates['bare']:.1f} GB/s "
        f"({rates['ours'] / rates['bare']:.3f}; bare from {min(both['bare']):.1f} to {max(both['bare']):.1f}); "
        f"the first block, opening included: {1e3 * cost:.2f} ms"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
