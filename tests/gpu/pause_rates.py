"""How fast memory is paused and resumed, beside the rate of a plain copy to and from pinned memory in the same run.

    python pause_rates.py [GIB]        20 GiB, or what the device and half of the host have

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


def plain_rates(stream: cenote.Stream) -> tuple[float, float]:
    """Bytes a second of copies between a device buffer and pinned memory, to the host and back; the best of five."""
    device = cenote.DeviceBuffer(size=PART, stream=stream)
    pinned = mr.PinnedHostMemoryResource()
    address = pinned.allocate(PART, stream)
    host = (ctypes.c_ubyte * PART).from_address(address)

    def to_host() -> None:
        for _ in range(8):
            copy_ptr_to_host(device.ptr, host, stream)
        stream.synchronize()

    def to_device() -> None:
        for _ in range(8):
            copy_host_to_ptr(host, device.ptr, stream)
        stream.synchronize()

    rates = tuple(8 * PART / min(seconds(copy) for _ in range(5)) for copy in (to_host, to_device))
    pinned.deallocate(address, PART, stream)
    return rates[0], rates[1]


def main() -> None:
    size = size_to_take()
    stream = cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING)
    out, back = plain_rates(stream)
    print(
        f"{cenote.driver.device_name(0)}, {size / GIB:.2f} GiB; plain copies {out / 1e9:.1f} GB/s out, "
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
        pausing_seconds = seconds(lambda: cenote.pause("rates"))
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
