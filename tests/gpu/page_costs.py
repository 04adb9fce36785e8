"""What a pool's growth and its moves of pages cost, beside the driver's bare calls for the same pages, in turns.

    python page_costs.py [GIB]       48 GiB, or what the device has free, by blocks of 64 MiB

*Growing*: each page is created, mapped and opened. *Moving*: a page is mapped and opened at other addresses, and
unmapped where it lay. The pool's figures are the time of its allocations, for each page that they brought. The bare
ones are of the calls alone, for as many pages of the same sizes, or for moves of their average size, less the time of
the same loops over functions in C that do nothing. Printed are the medians of the rounds and of their ratios; either
side goes first by turns. At the end: what giving pages back takes, by bare calls.
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
from typing import Any

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

    def less(self, other: Growth) -> Growth:
        seconds = {size: took - other.seconds[size] for size, took in self.seconds.items()}
        return Growth(seconds, self.pages, self.late - other.late)


ARGUMENTS = {
    "cuMemCreate": (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_uint64),
    "cuMemMap": (ctypes.c_uint64, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_uint64, ctypes.c_uint64),
    "cuMemSetAccess": (ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t),
    "cuMemUnmap": (ctypes.c_uint64, ctypes.c_size_t),
    "cuMemRelease": (ctypes.c_uint64,),
}


def functions(does_nothing: bool = False) -> list[Any]:
    """Those of ARGUMENTS in its order, or as many that ignore what they are given."""
    found = []
    for name, arguments in ARGUMENTS.items():
        library = ctypes.CDLL(None if does_nothing else "libcuda.so.1")
        function = library["abs" if does_nothing else name]  # an object of its own, unlike an attribute
        function.argtypes = arguments
        found.append(function)
    return found


class Pages:
    """Pages of device 0 by bare calls, and addresses for them."""

    def __init__(self, nbytes: int) -> None:
        calls = ctypes.CDLL("libcuda.so.1")
        context, base = ctypes.c_void_p(), ctypes.c_uint64()
        self.check(calls.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
        self.check(calls.cuCtxPushCurrent_v2(context))
        size, none = ctypes.c_size_t(nbytes), ctypes.c_uint64(0)
        self.check(calls.cuMemAddressReserve(ctypes.byref(base), size, ctypes.c_size_t(32 * MIB), none, none))
        self._base = base.value
        self._properties = Properties(1, 0, Location(1, 0), None, (ctypes.c_ubyte * 8)())
        self._access = Access(Location(1, 0), 3)
        self._made = ctypes.c_uint64()

    @staticmethod
    def check(result: int) -> None:
        if result != 0:
            raise RuntimeError(f"a driver call failed with error {result}")

    def grow(self, counts: list[int]) -> Growth:
        """Make as many pages for each block, then give them back."""
        grown, nothing = Growth(), Growth()
        self.check(self._grow(functions(), counts, grown))
        self._grow(functions(does_nothing=True), counts, nothing)
        return grown.less(nothing)

    def _grow(self, calls: list[Any], counts: list[int], grown: Growth) -> int:
        create, map_, set_access, unmap, release = calls
        made_at, how, who = (ctypes.addressof(each) for each in (self._made, self._properties, self._access))
        pages, at, failures = [], self._base, 0
        for number, count in enumerate(counts):
            size = BLOCK // count
            began = time.perf_counter()
            for _ in range(count):
                failures |= create(made_at, size, how, 0)
                page = self._made.value
                failures |= map_(at, size, 0, page, 0) | set_access(at, size, who, 1)
                pages.append((page, at, size))
                at += size
            grown.add(number, size, count, time.perf_counter() - began)
        for page, where, size in pages:
            failures |= unmap(where, size) | release(page)
        return failures

    def move(self, count: int, size: int) -> float:
        """Move as many pages to other addresses, then give them back; the seconds of moving."""
        took, failures = self._move(functions(), count, size)
        self.check(failures)
        return took - self._move(functions(does_nothing=True), count, size)[0]

    def _move(self, calls: list[Any], count: int, size: int) -> tuple[float, int]:
        create, map_, set_access, unmap, release = calls
        made_at, how, who = (ctypes.addressof(each) for each in (self._made, self._properties, self._access))
        failures, places = 0, []
        for number in range(count):
            at = self._base + number * size
            failures |= create(made_at, size, how, 0)
            places.append((self._made.value, at, at + count * size))
            failures |= map_(at, size, 0, self._made.value, 0) | set_access(at, size, who, 1)
        began = time.perf_counter()
        for page, at, to in places:
            failures |= map_(to, size, 0, page, 0) | set_access(to, size, who, 1) | unmap(at, size)
        took = time.perf_counter() - began
        for page, _, at in places:
            failures |= unmap(at, size) | release(page)
        return took, failures

    def give_back(self, count: int, size: int, at_once: bool) -> tuple[float, float]:
        """Make as many pages side by side, and give them back; the seconds of unmapping, and of releasing."""
        create, map_, set_access, unmap, release = functions()
        made_at, how, who = (ctypes.addressof(each) for each in (self._made, self._properties, self._access))
        places, failures = [], 0
        for at in range(self._base, self._base + count * size, size):
            failures |= create(made_at, size, how, 0)
            places.append((self._made.value, at))
            failures |= map_(at, size, 0, self._made.value, 0) | set_access(at, size, who, 1)
        began = time.perf_counter()
        if at_once:
            failures |= unmap(self._base, count * size)
        else:
            for _, at in places:
                failures |= unmap(at, size)
        unmapped = time.perf_counter()
        for page, _ in places:
            failures |= release(page)
        released = time.perf_counter()
        self.check(failures)
        return unmapped - began, released - unmapped


def show_giving_back(pages: Pages) -> None:
    for size in (2 * MIB, 8 * MIB, 32 * MIB):
        count = 2 * GIB // size
        rounds = [[pages.give_back(count, size, at_once) for at_once in (False, True)] for _ in range(ROUNDS)]
        each, at_once = (statistics.median(one[way][0] for one in rounds) for way in (0, 1))
        released = statistics.median(took for one in rounds for _, took in one)
        print(
            f"{count} pages of {size // MIB} MiB: unmapped in {1e3 * each:.1f} ms by a call for each, in "
            f"{1e3 * at_once:.1f} ms by one for all; released in {1e3 * released:.1f} ms",
            flush=True,
        )


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
        assert counts[-1] != 0 and BLOCK % counts[-1] == 0, "the pages of a block are of several sizes"
        grown.add(number, BLOCK // counts[-1], counts[-1], took)
    for address in addresses:
        pool.deallocate(address, BLOCK, stream)
    stream.synchronize()
    pool.trim(wait=True)
    del pool
    gc.collect()
    return grown, counts


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
    pages = Pages(max(size, 2 * MOVED_LIMIT))
    counts = grow_pool(size // BLOCK, stream)[1]
    pages.grow(counts)  # the driver's own first times
    growths = []
    for turn in range(ROUNDS):
        bare = pages.grow(counts) if turn % 2 else None
        grown, again = grow_pool(size // BLOCK, stream)
        assert again == counts
        growths.append((grown, bare or pages.grow(counts)))
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
    _, moved = move_in_pool(stream)
    average = MOVED_LIMIT // 2 // moved // (2 * MIB) * 2 * MIB
    for turn in range(ROUNDS):
        before = pages.move(moved, average) if turn % 2 else None
        took, again = move_in_pool(stream)
        assert again == moved
        moves.append((1e6 * took / moved, 1e6 * (before or pages.move(moved, average)) / moved))
    print(f"{moved} pages are moved in a round, of {MOVED_LIMIT / 2 / moved / MIB:.1f} MiB on average")
    pool, bare = (list(side) for side in zip(*moves, strict=True))
    show("a move", pool, bare, "us")
    show_giving_back(pages)


if __name__ == "__main__":
    main()
