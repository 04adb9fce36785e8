"""How fast memory is paused and resumed, beside what plain copies and the driver's page calls take in the same run.

    python pause_rates.py [GIB] [KEEP] [--turns N]

GIB is 20, or what the device and a sixth of the host's free memory have; KEEP is "host", or "peer:1".

Prints two lines for each pause, of pausing and of resuming: the time, the rate and its share of the plain copies' rate;
then the time of as many plain copies and of the driver's calls for as many pages, and their sum as a share of the time.
A sum above 100 % means that calls ran beside copies. The calls are those of the device, which gives its pages back, and
of the neighbour, which gets pages for the contents.

The first pause to the host also pins memory. So before the others as much is pinned by itself, and a region paused for
the first time, twice or --turns times, and which of the two goes first alternates: where a virtual machine's host gives
memory out as it is touched, its rate changes within a run. All stays pinned until the end of these, so that each meets
memory that no other has used.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

import cenote
from cenote import mr, pausing
from cenote.device_buffer import copy_device_to_ptr, copy_host_to_ptr, copy_ptr_to_host

MIB, GIB = 1 << 20, 1 << 30
PART = 256 * MIB
TILE = 8 * MIB
CYCLES = 5
DEVICE_PAGE = 32 * MIB  # of a pool of 4 GiB and more, once it was resumed
NEIGHBOUR_PAGE = 256 * MIB


def seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def size_to_take(wanted: float | None, times: int) -> int:
    """Bytes: what is wanted, or else 20 GiB if the device has them, and the host as many times."""
    host = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    most = min(20 * GIB, int(cenote.available_device_memory()[0] * 0.8), host // times)
    return (most if wanted is None else int(wanted * GIB)) // PART * PART


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


@dataclass
class PageCalls:
    """Seconds of the driver's calls for as many pages as are paused."""

    make: float  # create, map, set access
    give_back: float  # unmap, release


def page_calls(specification: str, device: int, size: int, page: int) -> PageCalls:
    """Those of blocks of one page each: all are made, then all are given back. The best of three times."""
    resource = mr.from_spec(specification, device)
    count = -(-size // page)
    blocks: list[int] = []

    def make() -> None:
        blocks.extend(resource.allocate(page) for _ in range(count))

    def give_back() -> None:
        while blocks:
            resource.deallocate(blocks.pop(), page)

    times = [(seconds(make), seconds(give_back)) for _ in range(3)]
    return PageCalls(min(made for made, _ in times), min(given for _, given in times))


class Pinning:
    """Host memory that is pinned: several threads touch huge pages, and the driver registers all at once."""

    def __init__(self, size: int) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        context = ctypes.c_void_p()
        assert self._driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
        assert self._driver.cuCtxPushCurrent_v2(context) == 0
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        self._pages = np.frombuffer(memory, np.uint8)
        self.seconds = seconds(self._pin)

    def _pin(self) -> None:
        threads, size = 8, self._pages.size
        borders = [size * number // threads for number in range(threads + 1)]

        def touch(begin: int, end: int) -> None:
            self._pages[begin : end : mmap.PAGESIZE] = 0

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(touch, borders[:-1], borders[1:]))
        assert self._driver.cuMemHostRegister_v2(self._begin(), ctypes.c_size_t(size), 1) == 0

    def _begin(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self._pages.ctypes.data)

    def release(self) -> None:
        assert self._driver.cuMemHostUnregister(self._begin()) == 0


def show_first_pauses(size: int, turns: int) -> None:
    """Pinning and pauses that pin, in turn; each region is made before its pause."""
    stream = cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING)
    names = [f"first {number}" for number in range(turns)]
    buffers, regions = [], []
    pinned, paused = [], []

    def pin() -> None:
        pinned.append(Pinning(size))

    def pause(name: str) -> None:
        with cenote.region(name) as region:
            regions.append(region)
            buffers.extend(cenote.DeviceBuffer(size=PART, stream=stream) for _ in range(size // PART))
        stream.synchronize()
        paused.append(seconds(lambda: cenote.pause(name)))

    for number, name in enumerate(names):
        if number % 2 == 0:
            pause(name)
            pin()
        else:
            pin()
            pause(name)
    shares = [each.seconds / took for each, took in zip(pinned, paused, strict=True)]
    pinning, pauses = sum(each.seconds for each in pinned), sum(paused)

    def rate(took: float, parts: int = 1) -> str:
        return f"{parts * size / took / 1e9:.1f}"

    print(
        f"first pauses: {turns} times {size / GIB:.2f} GiB in turn pinned at {rate(pinning, turns)} GB/s and paused at "
        f"{rate(pauses, turns)} GB/s, {pinning / pauses:.0%} of pinning ({min(shares):.0%} to {max(shares):.0%}, "
        f"median {statistics.median(shares):.0%})"
    )
    each_rate = (f"{rate(own.seconds)} {rate(took)}" for own, took in zip(pinned, paused, strict=True))
    print(f"each pinned and paused, GB/s: {', '.join(each_rate)}", flush=True)
    for name in names:
        cenote.resume(name)
    for each in pinned:
        each.release()
    buffers.clear()
    for region in regions:
        for pool in region.pools:
            pool.trim(wait=True)
    pausing.keep_pinned(0)  # so that the pauses below pin their memory, too
    pausing.keep_pinned("64GiB")


def report(what: str, size: int, took: float, plain_rate: float, device_calls: float, neighbour_calls: float) -> None:
    copies = size / plain_rate
    bound = copies + device_calls + neighbour_calls
    calls = f"page calls {1e3 * device_calls:.1f}"
    if neighbour_calls:
        calls += f" and the neighbour's {1e3 * neighbour_calls:.1f}"
    print(
        f"{what} {1e3 * took:6.1f} ms, {size / took / 1e9:5.1f} GB/s ({copies / took:4.0%} of plain copies); "
        f"copies {1e3 * copies:.1f} ms, {calls}, together {1e3 * bound:.1f} ms ({bound / took:.0%} of it)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gib", nargs="?", type=float)
    parser.add_argument("keep", nargs="?", default="host")
    parser.add_argument("--turns", type=int, default=2, help="of pinning and pausing for the first time")
    given = parser.parse_args()
    keep = given.keep
    size = size_to_take(given.gib, 2 + 2 * given.turns)
    stream = cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING)
    out, back = plain_rates(stream, keep)
    if keep == "host" and os.environ.get("CENOTE_CUDA_DRIVER") != "sim":
        show_first_pauses(size, given.turns)
    print(
        f"{cenote.driver.device_name(0)}, {size / GIB:.2f} GiB, kept in {keep}; plain copies {out / 1e9:.1f} GB/s out, "
        f"{back / 1e9:.1f} GB/s back"
    )
    neighbour = PageCalls(0, 0)
    if keep.startswith("peer:"):
        neighbour = page_calls("virtual:peers=0", int(keep.removeprefix("peer:")), size, NEIGHBOUR_PAGE)
    device = page_calls("virtual", 0, size, DEVICE_PAGE)
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
        report(f"pause {cycle + 1}:", size, pausing_seconds, out, device.give_back, neighbour.make)
        report("resume: ", size, resuming_seconds, back, device.make, neighbour.give_back)
        assert given >= region.nbytes * 0.99, (given, region.nbytes)
    found = bytearray(TILE)
    for part, tile, address in zip(parts, tiles, addresses, strict=True):
        assert part.ptr == address
        for at in (0, PART // 2, PART - TILE):
            copy_ptr_to_host(part.ptr + at, found, stream)
            stream.synchronize()
            assert found == tile, "contents are lost"
    kept = pausing.kept_pinned_nbytes()
    print(f"the device got all back, and contents are the same; {kept / GIB:.2f} GiB of pinned memory are kept")


if __name__ == "__main__":
    main()
