"""What a pool's growth and its moves of pages cost, beside the driver's bare calls for the same pages, in turns.

    python page_costs.py [GIB]       48 GiB, or what the device has free, by blocks of 64 MiB

*Growing*: each page is created, mapped and opened. *Moving*: a page is mapped and opened at other addresses, and
unmapped where it lay. The pool's figures are the time of its allocations, for each page that they brought; the bare
ones are of the calls alone, for as many pages of the same sizes, less what Python adds to a call. Printed are the
medians of the rounds and of their ratios.
"""

from __future__ import annotations

import ctypes
import gc
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import cenote
from cenote import mr

MIB, GIB = 1 << 20, 1 << 30
BLOCK = 64 * MIB
ROUNDS = 9
MOVED_LIMIT = 8 * GIB
FROM_GIB = 32


class Location(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("id", ctypes.c_int))


class Properties(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("handle_types", ctypes.c_int),
        ("location", Location),
        ("windows", ctypes.c_void_p),
        ("flags", ctypes.c_ubyte * 8),
    )


class Access(ctypes.Structure):
    _fields_ = (("location", Location), ("flags", ctypes.c_int))


class Driver:
    """The driver's calls for pages on device 0, and addresses for them."""

    def __init__(self, nbytes: int) -> None:
        calls = ctypes.CDLL("libcuda.so.1")
        word, size = ctypes.c_uint64, ctypes.c_size_t
        for name, arguments in (
            ("cuMemAddressReserve", (ctypes.c_void_p, size, size, word, word)),
            ("cuMemCreate", (ctypes.c_void_p, size, ctypes.c_void_p, word)),
            ("cuMemMap", (word, size, size, word, word)),
            ("cuMemSetAccess", (word, size, ctypes.c_void_p, size)),
            ("cuMemUnmap", (word, size)),
            ("cuMemRelease", (word,)),
        ):
            getattr(calls, name).argtypes = arguments
        self._calls = calls
        context = ctypes.c_void_p()
        self.check(calls.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
        self.check(calls.cuCtxPushCurrent_v2(context))
        self._properties = Properties(1, 0, Location(1, 0), None, (ctypes.c_ubyte * 8)())
        rdma = ctypes.c_int()
        self.check(calls.cuDeviceGetAttribute(ctypes.byref(rdma), 110, 0))  # GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED
        self._properties.flags[1] = rdma.value
        self._access = Access(Location(1, 0), 3)
        self._how, self._who = ctypes.addressof(self._properties), ctypes.addressof(self._access)
        self._made = word()
        self._at_made = ctypes.addressof(self._made)
        self.check(calls.cuMemAddressReserve(self._at_made, nbytes, 32 * MIB, 0, 0))
        self.base = self._made.value
        self.seconds_of_a_call = self._time_of_calling_c()

    @staticmethod
    def _time_of_calling_c() -> float:
        count, nothing = 100_000, ctypes.CDLL(None).labs  # ignores all arguments but the first
        nothing.argtypes = (ctypes.c_uint64,) * 5
        began = time.perf_counter()
        for _ in range(count):
            nothing(0, 0, 0, 0, 0)
        return (time.perf_counter() - began) / count

    @staticmethod
    def check(result: int) -> None:
        if result != 0:
            raise RuntimeError(f"a driver call failed with error {result}")

    def create(self, nbytes: int) -> int:
        self.check(self._calls.cuMemCreate(self._at_made, nbytes, self._how, 0))
        return self._made.value

    def map(self, page: int, at: int, nbytes: int) -> None:
        self.check(self._calls.cuMemMap(at, nbytes, 0, page, 0))
        self.check(self._calls.cuMemSetAccess(at, nbytes, self._who, 1))

    def unmap(self, at: int, nbytes: int) -> None:
        self.check(self._calls.cuMemUnmap(at, nbytes))

    def release(self, page: int) -> None:
        self.check(self._calls.cuMemRelease(page))


@dataclass
class Growth:
    """Seconds and pages, by the size of the pages; and the seconds beyond FROM_GIB."""

    seconds: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    pages: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    late: float = 0.0

    def add(self, block: int, size: int, count: int, took: float) -> None:
        self.seconds[size] += took
        self.pages[size] += count
        if (block + 1) * BLOCK > FROM_GIB * GIB:
            self.late += took


def grow_pool(blocks: int, stream: cenote.Stream) -> tuple[Growth, list[int]]:
    """Returns also how many pages each block brought."""
    pool = mr.from_spec("pool | virtual")
    grown, counts, addresses = Growth(), [], []
    for number in range(blocks):
        before = pool.counters().upstream_allocations
        began = time.perf_counter()
        addresses.append(pool.allocate(BLOCK, stream))
        took = time.perf_counter() - began
        counts.append(pool.counters().upstream_allocations - before)
        grown.add(number, BLOCK // counts[-1], counts[-1], took)
    for address in addresses:
        pool.deallocate(address, BLOCK, stream)
    stream.synchronize()
    pool.trim(wait=True)
    del pool
    gc.collect()
    return grown, counts


def grow_bare(driver: Driver, counts: list[int]) -> Growth:
    grown, made, at = Growth(), [], driver.base
    for number, count in enumerate(counts):
        size = BLOCK // count
        began = time.perf_counter()
        for _ in range(count):
            page = driver.create(size)
            driver.map(page, at, size)
            made.append((page, at, size))
            at += size
        grown.add(number, size, count, time.perf_counter() - began - 3 * count * driver.seconds_of_a_call)
    for page, where, size in made:
        driver.unmap(where, size)
        driver.release(page)
    return grown


def move_in_pool(stream: cenote.Stream) -> tuple[float, int]:
    """A full pool, of which every other block is freed: blocks of twice the size then come from moved pages alone."""
    pool = mr.PoolMemoryResource(mr.VirtualMemoryResource(), maximum_pool_size=MOVED_LIMIT)
    blocks = [pool.allocate(BLOCK, stream) for _ in range(MOVED_LIMIT // BLOCK)]
    for block in blocks[::2]:
        pool.deallocate(block, BLOCK, stream)
    stream.synchronize()
    larger = []
    before = pool.counters()
    began = time.perf_counter()
    for _ in range(len(blocks) // 4):
        larger.append(pool.allocate(2 * BLOCK, stream))
    pool.trim(MOVED_LIMIT)  # what was still to be unmapped
    took = time.perf_counter() - began
    after = pool.counters()
    moved = after.pages_moved - before.pages_moved
    assert moved > 0 and after.upstream_allocations == before.upstream_allocations, after
    for block in blocks[1::2]:
        pool.deallocate(block, BLOCK, stream)
    for block in larger:
        pool.deallocate(block, 2 * BLOCK, stream)
    stream.synchronize()
    pool.trim(wait=True)
    return took, moved


def move_bare(driver: Driver, count: int, size: int) -> float:
    places = [(driver.create(size), driver.base + number * size) for number in range(count)]
    for page, at in places:
        driver.map(page, at, size)
    began = time.perf_counter()
    for page, at in places:
        driver.map(page, at + count * size, size)
        driver.unmap(at, size)
    took = time.perf_counter() - began - 3 * count * driver.seconds_of_a_call
    for page, at in places:
        driver.unmap(at + count * size, size)
        driver.release(page)
    return took


def show(what: str, pool: list[float], bare: list[float], unit: str) -> None:
    ratios = [mine / its for mine, its in zip(pool, bare, strict=True)]
    print(
        f"{what:34} {statistics.median(pool):8.1f} {unit}, bare {statistics.median(bare):8.1f} {unit}; "
        f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
        flush=True,
    )


def main() -> None:
    wanted = float(sys.argv[1]) if len(sys.argv) > 1 else 48.0
    size = min(int(wanted * GIB), int(cenote.available_device_memory()[0] * 0.9)) // BLOCK * BLOCK
    stream = cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING)
    driver = Driver(max(size, 2 * MOVED_LIMIT))
    growths = []
    for turn in range(ROUNDS):
        if turn == 0:
            grow_bare(driver, grow_pool(size // BLOCK, stream)[1])  # the driver's own first times
        grown, counts = grow_pool(size // BLOCK, stream)
        growths.append((grown, grow_bare(driver, counts)))
    name = cenote.driver.device_name(0)
    print(f"{name}, {ROUNDS} rounds in turn, {size / GIB:.1f} GiB by blocks of {BLOCK // MIB} MiB")

    def compare(what: str, unit: str, of: Callable[[Growth], float]) -> None:
        show(what, [of(grown) for grown, _ in growths], [of(bare) for _, bare in growths], unit)

    for page in sorted(growths[0][0].pages):

        def of_a_page(each: Growth, page: int = page) -> float:
            return 1e6 * each.seconds[page] / each.pages[page]

        compare(f"growth, a page of {page // MIB} MiB", "us", of_a_page)
    compare("growth, all, a GiB", "ms", lambda each: 1e3 * sum(each.seconds.values()) / (size / GIB))
    if size > FROM_GIB * GIB:
        late_gib = size / GIB - FROM_GIB
        compare(f"growth beyond {FROM_GIB} GiB, a GiB", "ms", lambda each: 1e3 * each.late / late_gib)
    moves = []
    for turn in range(ROUNDS):
        took, count = move_in_pool(stream)
        moves.append((1e6 * took / count, 1e6 * move_bare(driver, count, 2 * MIB) / count))
        if turn == 0:
            print(f"{count} pages are moved in a round, of {MOVED_LIMIT / 2 / count / MIB:.1f} MiB on average")
    pool, bare = (list(side) for side in zip(*moves, strict=True))
    show("a move", pool, bare, "us")


if __name__ == "__main__":
    main()
