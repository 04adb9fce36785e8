"""What every resource promises, over a table of specifications; and what only some kinds of memory can do."""

from __future__ import annotations

import ctypes
import re
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cenote
from cenote import mr, sim, trace

MIB = 1024**2

SPECIFICATIONS = (
    "cuda",
    "managed",
    "pinned",
    "async",
    "async:initial=4MiB,release_threshold=1MiB",
    "pool:initial=0 | cuda",
    "pool:initial=1MiB,max=64MiB | cuda",
    "pool:initial=1MiB | managed",
    "pool:initial=1MiB | pinned",
    "pool:initial=1MiB | async",
    "pool:initial=0 | pool:initial=0 | cuda",
    "statistics | cuda",
    "statistics | statistics | pool:initial=0 | cuda",
    "logging:file={folder}/log.csv | pool:initial=0 | cuda",
)
SIZES = (1, 255, 256, 257, 4096, 1_000_003, 5 * MIB)


@pytest.fixture(params=SPECIFICATIONS)
def resource(request: pytest.FixtureRequest, tmp_path: Path) -> mr.DeviceMemoryResource:
    return mr.from_spec(request.param.format(folder=tmp_path))


def address_of(array: np.ndarray[Any, Any]) -> int:
    return int(array.ctypes.data)


def random_bytes(size: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(size).integers(0, 256, size, dtype="u1")


def test_zero_bytes_are_the_null_pointer_and_cost_no_driver_call(resource: mr.DeviceMemoryResource) -> None:
    sim.reset_calls()
    assert resource.allocate(0) == 0
    resource.deallocate(0, 0)
    assert sim.calls() == {}


@pytest.mark.parametrize("size", SIZES)
def test_addresses_are_multiples_of_256_and_do_not_overlap(resource: mr.DeviceMemoryResource, size: int) -> None:
    held = sorted(resource.allocate(size) for _ in range(5))
    assert all(address % 256 == 0 for address in held)
    assert all(later - earlier >= size for earlier, later in pairwise(held))
    for address in held:
        resource.deallocate(address, size)
    resource.check()


@pytest.mark.parametrize("size", SIZES)
def test_bytes_come_back_as_they_went(resource: mr.DeviceMemoryResource, size: int) -> None:
    written = random_bytes(size)
    buffer = cenote.DeviceBuffer(ptr=address_of(written), size=size, mr=resource)
    other = cenote.DeviceBuffer(size=size, mr=resource)
    other.copy_from_device(buffer)
    assert buffer.tobytes() == other.tobytes() == written.tobytes()


def test_whatever_was_allocated_is_given_back_when_the_resource_dies(tmp_path: Path) -> None:
    mr.CudaAsyncMemoryResource()  # its pool is kept, for the next one
    for specification in SPECIFICATIONS:
        before = sim.live()
        resource = mr.from_spec(specification.format(folder=tmp_path))
        held = [(resource.allocate(size), size) for size in SIZES]
        for address, size in held:
            resource.deallocate(address, size)
        del resource
        cenote.driver.synchronize(0)  # a pool of the driver's own gives back what was still being freed
        after = sim.live()
        assert (after.device_bytes, after.pinned_bytes, after.managed_bytes, after.allocations, after.pools) == (
            before.device_bytes,
            before.pinned_bytes,
            before.managed_bytes,
            before.allocations,
            before.pools,
        ), specification


@pytest.mark.parametrize("size", [-1, 2**64])
def test_size_that_is_no_size_is_an_overflow(resource: mr.DeviceMemoryResource, size: int) -> None:
    with pytest.raises(OverflowError):
        resource.allocate(size)


@pytest.mark.parametrize("size", [2**64 - 1, 2**64 - 256, 2**63, 2**50])
def test_size_that_no_device_has_is_out_of_memory_with_the_figures(
    resource: mr.DeviceMemoryResource, size: int
) -> None:
    with pytest.raises(MemoryError, match=f"{size} bytes") as caught:
        resource.allocate(size)
    error = caught.value
    assert isinstance(error, cenote.OutOfMemoryError)
    assert error.requested == size
    assert error.device_total == 8 * 1024**3
    assert error.device_free is not None and 0 <= error.device_free <= error.device_total
    state = resource.state()
    figures = ("in_use", "held", "limit", "largest_free", "device_free", "device_total")
    assert {name: getattr(error, name) for name in figures} == asdict(state)
    assert resource.specification in str(error)


def test_resource_serves_on_after_running_out_of_memory(resource: mr.DeviceMemoryResource) -> None:
    with pytest.raises(MemoryError):
        resource.allocate(2**50)
    resource.deallocate(resource.allocate(1000), 1000)
    resource.check()


def test_none_is_no_stream(resource: mr.DeviceMemoryResource) -> None:
    nothing: Any = None
    with pytest.raises(TypeError, match="DEFAULT_STREAM"):
        resource.allocate(256, nothing)
    address = resource.allocate(256)
    with pytest.raises(TypeError, match="DEFAULT_STREAM"):
        resource.deallocate(address, 256, nothing)
    resource.deallocate(address, 256)


def test_memory_of_one_stream_may_be_freed_on_another(resource: mr.DeviceMemoryResource) -> None:
    one, two = cenote.Stream(), cenote.Stream()
    address = resource.allocate(MIB, one)
    one.synchronize()
    resource.deallocate(address, MIB, two)
    resource.deallocate(resource.allocate(MIB, one), MIB, one)
    resource.check()


def test_resource_works_whatever_device_is_current(resource: mr.DeviceMemoryResource, on_device: Any) -> None:
    assert resource.device == 0
    with on_device(1):
        written = random_bytes(1000)
        buffer = cenote.DeviceBuffer(ptr=address_of(written), size=1000, mr=resource)
        assert (buffer.device, buffer.tobytes()) == (0, written.tobytes())
        assert cenote.driver.current_device() == 1
        del buffer
        resource.trim()
        resource.check()
    assert cenote.driver.current_device() == 0


@pytest.mark.parametrize("kind", ["managed", "pinned", "pool:initial=1MiB | managed", "pool:initial=1MiB | pinned"])
def test_host_reads_and_writes_memory_that_says_so(kind: str) -> None:
    resource = mr.from_spec(kind)
    assert resource.is_host_accessible
    address = resource.allocate(16)
    ctypes.memmove(address, b"written by a host", 16)
    buffer = cenote.DeviceBuffer(ptr=address, size=16, mr=mr.CudaMemoryResource())
    assert buffer.tobytes() == b"written by a hos"
    ctypes.memset(address, 7, 16)
    assert ctypes.string_at(address, 16) == bytes([7]) * 16
    resource.deallocate(address, 16)


@pytest.mark.parametrize("kind", ["cuda", "async", "pool:initial=0 | cuda"])
def test_device_memory_is_not_host_accessible(kind: str) -> None:
    assert not mr.from_spec(kind).is_host_accessible


class WithMethod:
    """cuda.core, CuPy 14: the protocol as a method."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._handle


class WithAttribute:
    """An older form of the protocol: a plain attribute."""

    def __init__(self, handle: int) -> None:
        self.__cuda_stream__ = (0, handle)


class LikeTorch:
    def __init__(self, handle: int) -> None:
        self.cuda_stream = handle


class LikeCupy:
    def __init__(self, handle: int) -> None:
        self.ptr = handle


class LikeNumba:
    def __init__(self, handle: int) -> None:
        self.handle = ctypes.c_void_p(handle)


FOREIGN_STREAMS = (int, WithMethod, WithAttribute, LikeTorch, LikeCupy, LikeNumba)


@pytest.mark.parametrize("foreign", FOREIGN_STREAMS)
def test_stream_of_any_framework_is_the_one_that_is_used(foreign: Any, tmp_path: Path) -> None:
    ours = cenote.Stream()
    logged = mr.LoggingResourceAdaptor(mr.from_spec("pool:initial=0 | cuda"), tmp_path / "log.csv")
    theirs = foreign(ours.handle)
    logged.deallocate(logged.allocate(256, theirs), 256, theirs)
    buffer = cenote.DeviceBuffer(size=512, stream=theirs, mr=logged)
    assert buffer.stream == ours
    del buffer
    logged.flush()
    assert trace.read(logged.get_file_name())["stream"].tolist() == [ours.handle] * 4


@pytest.mark.parametrize("foreign", FOREIGN_STREAMS)
def test_default_stream_of_any_framework_is_the_default_stream(foreign: Any) -> None:
    assert cenote.Stream(foreign(0)) == cenote.DEFAULT_STREAM


@pytest.mark.parametrize("specification", [text for text in SPECIFICATIONS if not text.startswith("logging")])
def test_repr_names_the_class_the_specification_and_the_device(specification: str) -> None:
    resource = mr.from_spec(specification, 1)
    assert repr(resource) == f"<cenote.mr.{type(resource).__name__} '{specification}' on device 1>"


@pytest.mark.parametrize("resource_class", [mr.PoolMemoryResource, mr.StatisticsResourceAdaptor])
@pytest.mark.parametrize("wrong", [None, 7, "cuda", object()])
def test_upstream_that_is_no_resource_is_a_type_error(resource_class: Any, wrong: object) -> None:
    with pytest.raises(TypeError, match=re.escape(type(wrong).__name__)):
        resource_class(wrong)


def test_base_class_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="common base"):
        mr.DeviceMemoryResource()


def test_upstream_lives_as_long_as_what_stands_on_it() -> None:
    statistics = mr.StatisticsResourceAdaptor(mr.PoolMemoryResource(mr.CudaMemoryResource(), 0))
    pool = statistics.get_upstream()
    assert isinstance(pool, mr.PoolMemoryResource)
    assert isinstance(pool.upstream_mr, mr.CudaMemoryResource)
    statistics.deallocate(statistics.allocate(100), 100)


def test_async_pool_has_a_handle_of_the_driver() -> None:
    first, second = mr.CudaAsyncMemoryResource(), mr.CudaAsyncMemoryResource("1MiB")
    assert 0 not in (first.pool_handle(), second.pool_handle())
    assert first.pool_handle() != second.pool_handle()


def test_async_pool_keeps_what_it_was_told_to_start_with() -> None:
    held = mr.CudaAsyncMemoryResource(initial_pool_size="4MiB").state().held
    assert held is not None and held >= 4 * MIB


@pytest.mark.parametrize("size", ["", "many", "1 lake", "-1", "1e400"])
def test_text_that_is_no_size_is_a_value_error(size: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(size))):
        mr.PoolMemoryResource(mr.CudaMemoryResource(), size)


def test_a_resource_that_was_never_initialised_is_refused():
    with pytest.raises(RuntimeError, match="never initialised"):
        mr.CudaMemoryResource.__new__(mr.CudaMemoryResource).allocate(1)
    with pytest.raises(RuntimeError, match="never initialised"):
        repr(mr.PoolMemoryResource.__new__(mr.PoolMemoryResource))
    with pytest.raises(RuntimeError, match="never initialised"):
        mr.set_current_device_resource(mr.CudaMemoryResource.__new__(mr.CudaMemoryResource))
