"""What every memory resource and every adaptor promises: one suite over a table of all of them.

The table is complete: a test compares it with what `cenote.mr` has.
"""

from __future__ import annotations

import gc
import inspect
import random
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cenote
from cenote import mr

KIB, MIB, PIB = 1024, 1024**2, 1024**5

LARGEST = 8 * MIB  # what every resource of the table can give at once
LIMIT = 64 * MIB  # what the exhaustion of one may take

SIZES = (0, 1, 255, 256, 257, 4 * KIB, 1_000_003, LARGEST)
ALIGNMENTS = tuple(2**exponent for exponent in range(13))

Resource = mr.DeviceMemoryResource
Upstream = Callable[[], Resource]


def callback(upstream: Resource) -> Resource:
    return mr.CallbackMemoryResource(
        lambda size, stream: upstream.allocate(size, stream),
        lambda ptr, size, stream: upstream.deallocate(ptr, size, stream),
    )


def bins(upstream: Resource) -> Resource:
    binning = mr.BinningMemoryResource(upstream, 8, 16)
    binning.add_bin(MIB, mr.PoolMemoryResource(upstream, 0))
    return binning


def view_of_a_pool() -> Resource:
    owner = mr.CudaAsyncMemoryResource()
    view = mr.CudaAsyncViewMemoryResource(owner.pool_handle())
    owners[view] = owner
    return view


owners: dict[Resource, Resource] = {}  # a view does not keep its pool alive

BASES: dict[str, Upstream] = {
    "cuda": mr.CudaMemoryResource,
    "managed": mr.ManagedMemoryResource,
    "pinned": mr.PinnedHostMemoryResource,
    "virtual": mr.VirtualMemoryResource,
    "system": mr.SystemMemoryResource,
    "sam_headroom": lambda: mr.SamHeadroomMemoryResource(64 * MIB),
    "async": mr.CudaAsyncMemoryResource,
    "async_that_releases": lambda: mr.CudaAsyncMemoryResource("4MiB", release_threshold=0),
    "async_view": view_of_a_pool,
    "async_managed": mr.CudaAsyncManagedMemoryResource,
    "callback": lambda: callback(mr.CudaMemoryResource()),
}
OVER: dict[str, Callable[[Resource, Path], Resource]] = {
    "pool": lambda upstream, _: mr.PoolMemoryResource(upstream, 0),
    "arena": lambda upstream, _: mr.ArenaMemoryResource(upstream, 32 * MIB),
    "fixed_size": lambda upstream, _: mr.FixedSizeMemoryResource(upstream, LARGEST, 2),
    "fixed_size_on_demand": lambda upstream, _: mr.FixedSizeMemoryResource(upstream, LARGEST, 0),
    "binning": lambda upstream, _: bins(upstream),
    "statistics": lambda upstream, _: mr.StatisticsResourceAdaptor(upstream),
    "logging": lambda upstream, folder: mr.LoggingResourceAdaptor(upstream, folder / "log.csv"),
    "tracking": lambda upstream, _: mr.TrackingResourceAdaptor(upstream),
    "tracking_with_stacks": lambda upstream, _: mr.TrackingResourceAdaptor(upstream, capture_stacks=True),
    "limiting": lambda upstream, _: mr.LimitingResourceAdaptor(upstream, LIMIT),
    "failure_callback": lambda upstream, _: mr.FailureCallbackResourceAdaptor(upstream, lambda nbytes: False),
    "prefetch": lambda upstream, _: mr.PrefetchResourceAdaptor(upstream),
    "aligned": lambda upstream, _: mr.AlignedResourceAdaptor(upstream, 4096, 1000),
    "guard": lambda upstream, _: mr.GuardResourceAdaptor(upstream),
    "thread_safe": lambda upstream, _: mr.ThreadSafeResourceAdaptor(upstream),
}


def every_adaptor(upstream: Resource, folder: Path) -> Resource:
    for name in ("limiting", "statistics", "logging", "tracking", "failure_callback", "prefetch", "aligned"):
        upstream = OVER[name](upstream, folder)
    return upstream


# Each upstream of a different nature at least once; every adaptor over plain memory and over a pool.
STACKS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in BASES},
    **{f"{name}_over_cuda": (name, "cuda") for name in OVER},
    **{f"{name}_over_pool": (name, "pool", "cuda") for name in OVER},
    **{f"pool_over_{name}": ("pool", name) for name in BASES},
    "arena_over_pinned": ("arena", "pinned"),
    "prefetch_over_managed": ("prefetch", "managed"),
    "prefetch_over_pool_over_managed": ("prefetch", "pool", "managed"),
    "binning_over_async": ("binning", "async"),
    "fixed_size_over_managed": ("fixed_size", "managed"),
    "everything": ("every_adaptor", "pool", "cuda"),
}
OVER_ALL = {**OVER, "every_adaptor": every_adaptor}


def build(stack: tuple[str, ...], folder: Path, above_base: Callable[[Resource], Resource] = lambda r: r) -> Resource:
    """The resources of a stack, outermost first; `above_base` may put something over the innermost."""
    *outer, base = stack
    try:
        resource = above_base(BASES[base]())
    except RuntimeError as error:
        if "pageable" in str(error) or "13.0" in str(error) or "concurrent managed" in str(error):
            pytest.skip(str(error))
        raise
    for name in reversed(outer):
        resource = OVER_ALL[name](resource, folder)
    return resource


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return STACKS[request.param]


@pytest.fixture
def resource(stack: tuple[str, ...], tmp_path: Path) -> Iterator[Resource]:
    made = build(stack, tmp_path)
    yield made
    made.check()
    owners.pop(made, None)


def pattern(seed: int, size: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, size, dtype="u1")


def test_the_table_has_every_resource_and_adaptor(tmp_path: Path) -> None:
    classes = {
        cls for cls in vars(mr).values() if inspect.isclass(cls) and issubclass(cls, mr.DeviceMemoryResource)
    } - {mr.DeviceMemoryResource, mr.UpstreamResourceAdaptor}
    made: set[type] = {mr.SystemMemoryResource, mr.SamHeadroomMemoryResource, mr.CudaAsyncManagedMemoryResource}
    optional = {"system", "sam_headroom", "async_managed"}  # not every device has them; the rows skip themselves
    for stack in STACKS.values():
        if optional.isdisjoint(stack):
            made.add(type(build(stack, tmp_path)))
    assert classes == made
    assert optional <= set(BASES)


@pytest.mark.parametrize("size", SIZES)
def test_memory_of_every_size_is_aligned_and_disjoint(resource: Resource, size: int) -> None:
    held = sorted(resource.allocate(size) for _ in range(3))
    if size == 0:
        assert held == [0, 0, 0]
    else:
        assert all(address != 0 and address % 256 == 0 for address in held)
        assert all(later - earlier >= size for earlier, later in pairwise(held))
    for address in held:
        resource.deallocate(address, size)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_every_alignment_is_honoured(resource: Resource, alignment: int) -> None:
    held = [(resource.allocate(size, alignment=alignment), size) for size in (1, 1000, 4097, 100_000)]
    assert all(address % max(alignment, 256) == 0 for address, _ in held)
    for address, size in held:
        resource.deallocate(address, size, alignment=alignment)


@pytest.mark.parametrize("alignment", [0, 3, 48, 257])
def test_alignment_that_is_no_power_of_two_is_a_value_error(resource: Resource, alignment: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        resource.allocate(1000, alignment=alignment)


@pytest.mark.parametrize("size", [PIB, 2**63, 2**64 - 256, 2**64 - 1])
def test_what_no_device_has_is_out_of_memory_and_nothing_is_lost(resource: Resource, size: int) -> None:
    address = resource.allocate(1000)
    with pytest.raises(MemoryError, match="bytes"):
        resource.allocate(size, alignment=4096)
    with pytest.raises(MemoryError, match=f"{size} bytes"):
        resource.allocate(size)
    resource.check()
    assert resource.allocate(0) == 0
    again = resource.allocate(1000)
    assert again not in (0, address)
    resource.deallocate(again, 1000)
    resource.deallocate(address, 1000)


def test_bytes_come_back_on_every_stream(resource: Resource) -> None:
    streams = [cenote.DEFAULT_STREAM, cenote.PER_THREAD_DEFAULT_STREAM, cenote.Stream(), cenote.Stream()]
    for round_number in range(3):
        written = [pattern(10 * round_number + i, 50_000 + i) for i in range(len(streams))]
        buffers = []
        for bytes_, stream in zip(written, streams, strict=True):
            buffer = cenote.DeviceBuffer(size=bytes_.size, stream=stream, mr=resource)
            buffer.copy_from_host(bytes_, stream=stream)
            buffers.append(buffer)
        for bytes_, stream, buffer in zip(written, streams, buffers, strict=True):
            assert buffer.tobytes(stream=stream) == bytes_.tobytes()


def test_memory_may_be_freed_on_another_stream(resource: Resource) -> None:
    one, two = cenote.Stream(), cenote.Stream()
    for seed in range(8):
        written = pattern(seed, MIB)
        buffer = cenote.DeviceBuffer(size=MIB, stream=one, mr=resource)
        buffer.copy_from_host(written, stream=one)
        one.synchronize()
        assert buffer.tobytes(stream=two) == written.tobytes()  # used on `two` last, and freed there
        assert buffer.stream == two
        del buffer
        one, two = two, one


def test_stream_may_be_gone_after_its_memory_was_freed(resource: Resource) -> None:
    for seed in range(5):
        stream = cenote.Stream()
        buffer = cenote.DeviceBuffer(size=100_000, stream=stream, mr=resource)
        buffer.copy_from_host(pattern(seed, 100_000), stream=stream)
        del buffer, stream
        gc.collect()
    resource.trim()


def test_threads_allocate_pass_on_and_free(resource: Resource) -> None:
    """Each on a stream of its own; a block is filled by one thread, checked and freed by another."""
    shelf: list[tuple[cenote.DeviceBuffer, bytes, cenote.Stream]] = []
    lock = threading.Lock()
    failures: list[str] = []

    def take_one(dice: random.Random) -> tuple[cenote.DeviceBuffer, bytes, cenote.Stream] | None:
        with lock:
            return shelf.pop(dice.randrange(len(shelf))) if len(shelf) > 8 else None

    def work(seed: int) -> None:
        try:
            dice, stream = random.Random(seed), cenote.Stream()
            for step in range(20):
                written = pattern(1000 * seed + step, dice.randrange(1, 2 ** dice.randrange(1, 16)))
                buffer = cenote.DeviceBuffer(size=written.size, stream=stream, mr=resource)
                buffer.copy_from_host(written, stream=stream)
                with lock:
                    shelf.append((buffer, written.tobytes(), stream))
                taken = take_one(dice)
                if taken is not None:
                    theirs, expected, written_on = taken
                    written_on.synchronize()
                    if theirs.tobytes(stream=stream) != expected:
                        failures.append(f"thread {seed} read another's bytes")
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for buffer, expected, stream in shelf:
        assert buffer.tobytes(stream=stream) == expected
    assert failures == []


def test_exhausted_resource_recovers(stack: tuple[str, ...], tmp_path: Path) -> None:
    """What a limit of the upstream lets through, once all of it was freed, can be had again."""
    if len(stack) == 1:
        resource: Resource = mr.LimitingResourceAdaptor(build(stack, tmp_path), LIMIT)
    else:
        resource = build(stack, tmp_path, above_base=lambda base: mr.LimitingResourceAdaptor(base, LIMIT))
    counts = []
    for _ in range(3):
        held = []
        with pytest.raises(MemoryError):
            while len(held) <= LIMIT // MIB:
                held.append(resource.allocate(MIB))
        assert held
        for address in held:
            resource.deallocate(address, MIB)
        counts.append(len(held))
        resource.check()
    assert counts[0] == counts[1] == counts[2]


def test_resource_may_die_with_blocks_in_use(stack: tuple[str, ...], tmp_path: Path) -> None:
    """Buffers keep their resource alive; of blocks that nobody keeps only an address is left, and no harm is done."""
    resource = build(stack, tmp_path)
    owner = owners.pop(resource, None)
    written = pattern(3, 10_000)
    buffer = cenote.DeviceBuffer(ptr=int(written.ctypes.data), size=written.size, mr=resource)
    del resource
    gc.collect()
    assert buffer.tobytes() == written.tobytes()
    del buffer
    gc.collect()
    del owner
    leaky = build(stack, tmp_path)
    owner = owners.pop(leaky, None)
    assert leaky.allocate(10_000) != 0
    del leaky, owner
    gc.collect()
    after = build(stack, tmp_path)
    after.deallocate(after.allocate(10_000), 10_000)
    owners.pop(after, None)


def test_resource_is_equal_to_itself_only(stack: tuple[str, ...], tmp_path: Path) -> None:
    one, other = build(stack, tmp_path), build(stack, tmp_path)
    assert one == one and hash(one) == hash(one)
    assert one != other
    assert one != "cuda"
    owners.clear()


def test_what_is_current_serves_buffers(resource: Resource) -> None:
    previous = mr.get_current_device_resource()
    mr.set_current_device_resource(resource)
    try:
        assert mr.get_current_device_resource() is resource
        assert cenote.DeviceBuffer(size=100).mr is resource
    finally:
        mr.set_current_device_resource(previous)
