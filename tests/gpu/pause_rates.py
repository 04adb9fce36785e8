"""How fast memory is paused and resumed, beside the rate of plain copies to and from the same place in the same run.

    python pause_rates.py [GIB] [KEEP]        20 GiB, or what the device and half of the host have; "host" or "peer:1"

Prints a line for each pause: GB/s of pausing and of resuming, and both as a share of the plain copies' rate.
"""

from __future__ import annotations

import ctypes
import os
import random
import sys
import time
from collections.abc import Callable

import cenote
from cenote import mr, pausing
from cenote.device_buffer import copy_device_to_ptr, copy_host_to_ptr, copy_ptr_to_host

MIB, GIB = 1 << 20, 1 << 30
PART = 256 * MIB
TILE = 8 * MIB
CYCLES = 5


def seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def size_to_take() -> int:
    wanted = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    host = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    most = min(int(wanted * GIB), int(cenote.available_device_memory()[0] * 0.8), host // 2)
    return most // PART * PART


def best_rate(stream: cenote.Stream, copy: Callable[[], object]) -> float:
    """Bytes a second of copies of a part, the best of five times eight."""

    def eight() -> None:
        for _ in range(8):
            copy()
        stream.synchronize()

    return 8 * PART / min(seconds(eight) for _ in range(5))


def plain_rates(stream: cenote.Stream, keep: str) -> tuple[float, float]:
    """Those of copies between a buffer and the place where contents are kept, out and back."""
    buffer = cenote.DeviceBuffer(size=PART, stream=stream)
    if keep.startswith("peer:"):
        pool = mr.from_spec("pool | virtual:peers=all", int(keep.removeprefix("peer:")))
        address = pool.allocate(PART)
        out = best_rate(stream, lambda: copy_device_to_ptr(buffer.ptr, address, PART, stream))
        back = best_rate(stream, lambda: copy_device_to_ptr(address, buffer.ptr, PART, stream))
        pool.deallocate(address, PART)
        return out, back
    pinned = mr.PinnedHostMemoryResource()
    address = pinned.allocate(PART, stream)
    host = (ctypes.c_ubyte * PART).from_address(address)
    out = best_rate(stream, lambda: copy_ptr_to_host(buffer.ptr, host, stream))
    back = best_rate(stream, lambda: copy_host_to_ptr(host, buffer.ptr, stream))
    pinned.deallocate(address, PART, stream)
    return out, back


def main() -> None:
    size = size_to_take()
    stream = cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING)
    keep = sys.argv[2] if len(sys.argv) > 2 else "host"
    out, back = plain_rates(stream, keep)
    print(
        f"{cenote.driver.device_name(0)}, {size / GIB:.2f} GiB, kept in {keep}; plain copies {out / 1e9:.1f} GB/s out, "
        f"{back / 1e9:.1f} GB/s back"
    )
    with cenote.region("rates") as region:
        parts = [cenote.DeviceBuffer(size=PART, stream=stream) for _ in range(size // PART)]
    tiles = [random.Random(number).randbytes(TILE) for number in range(len(parts))]
    for part, tile in zip(parts, tiles, strict=True):
        part.copy_from_host(tile, stream)
        for at in range(TILE, PART, TILE):
            copy_device_to_ptr(part.ptr, part.ptr + at, TILE, stream)
    stream.synchronize()
    addresses = [part.ptr for part in parts]
    for cycle in range(CYCLES):
        free = cenote.available_device_memory()[0]
        pausing_seconds = seconds(lambda: cenote.pause("rates", keep))
        given = cenote.available_device_memory()[0] - free
        resuming_seconds = seconds(lambda: cenote.resume("rates"))
        rate, rate_back = size / pausing_seconds, size / resuming_seconds
        print(
            f"pause {cycle + 1}: {rate / 1e9:5.1f} GB/s ({rate / out:4.0%}), resume {rate_back / 1e9:5.1f} GB/s "
            f"({rate_back / back:4.0%}); the device got {given / GIB:.3f} GiB of {region.nbytes / GIB:.3f}",
            flush=True,
        )
    found = bytearray(TILE)
    for part, tile, address in zip(parts, tiles, addresses, strict=True):
        assert part.ptr == address
        for at in (0, PART // 2, PART - TILE):
            copy_ptr_to_host(part.ptr + at, found, stream)
            stream.synchronize()
            assert found == tile, "contents are lost"
    print(f"contents are the same; {pausing.kept_pinned_nbytes() / GIB:.2f} GiB of pinned memory are kept")


if __name__ == "__main__":
    main()
