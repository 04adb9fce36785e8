"""The order of work: a block's next user never disturbs its last one. The simulated streams run as late as they may."""

from __future__ import annotations

import ctypes
import random
from typing import Any

import pytest

import cenote
from cenote import DeviceBuffer, Stream, mr, sim

SIZE = 4096
POOLS = ("pool:initial=4KiB,max=4KiB | cuda", "pool:initial=4KiB,max=4KiB | managed", "async")


def independent_stream() -> Stream:
    return Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING)


def filled(value: int, resource: mr.DeviceMemoryResource, stream: Stream) -> DeviceBuffer:
    """A buffer into which `value`, everywhere, is on its way on `stream`."""
    buffer = DeviceBuffer(size=SIZE, stream=stream, mr=resource)
    buffer.copy_from_host(bytes([value]) * SIZE, stream)
    return buffer


@pytest.mark.parametrize("specification", POOLS)
def test_block_freed_on_one_stream_and_reused_on_another_disturbs_no_queued_work(specification: str) -> None:
    resource = mr.from_spec(specification)
    one, two = independent_stream(), independent_stream()
    result = DeviceBuffer(size=SIZE, stream=one, mr=mr.CudaMemoryResource())
    first = filled(1, resource, one)
    result.copy_from_device(first, one)  # queued, and not run before somebody waits
    del first
    assert sim.pending() >= 2
    second = filled(2, resource, two)
    two.synchronize()
    assert result.tobytes(one) == b"\x01" * SIZE
    assert second.tobytes(two) == b"\x02" * SIZE
    resource.check()


def test_memory_that_is_shared_without_order_shows_wrong_bytes() -> None:
    """The control of the tests here: what they would see without the pool's waits."""
    one, two = independent_stream(), independent_stream()
    shared = mr.CudaMemoryResource().allocate(SIZE)
    source = {value: DeviceBuffer.to_device(bytes([value]) * SIZE) for value in (1, 2)}
    result = DeviceBuffer(size=SIZE, stream=one, mr=mr.CudaMemoryResource())
    queue_copy(shared, source[1].ptr, one)
    queue_copy(result.ptr, shared, one)
    queue_copy(shared, source[2].ptr, two)  # on another stream, after nothing
    one.synchronize()
    assert result.tobytes(one) == b"\x01" * SIZE
    two.synchronize()
    queue_copy(shared, source[1].ptr, one)
    one.synchronize()
    queue_copy(result.ptr, shared, one)
    queue_copy(shared, source[2].ptr, two)
    two.synchronize()
    assert result.tobytes(one) == b"\x02" * SIZE
    mr.CudaMemoryResource().deallocate(shared, SIZE)


def queue_copy(target: int, source: int, stream: Stream) -> None:
    """Queue a copy as a framework's kernel would: without a word to cenote."""
    driver = ctypes.CDLL(str(sim._library.find_library()))
    pointers = (ctypes.c_void_p(target), ctypes.c_void_p(source))
    assert driver.cuMemcpyAsync(*pointers, ctypes.c_size_t(SIZE), ctypes.c_void_p(stream.handle)) == 0


def test_buffer_is_freed_on_the_stream_that_used_it_last() -> None:
    resource = mr.from_spec(POOLS[0])
    one, two, three = (independent_stream() for _ in range(3))
    result = DeviceBuffer(size=SIZE, stream=two, mr=mr.CudaMemoryResource())
    first = filled(1, resource, one)
    one.synchronize()
    result.copy_from_device(first, two)
    first.copy_from_device(DeviceBuffer(), two)  # no bytes; two is the last user from here
    del first
    second = filled(3, resource, three)
    three.synchronize()
    assert result.tobytes(two) == b"\x01" * SIZE
    assert second.tobytes(three) == b"\x03" * SIZE


def test_block_freed_on_a_stream_that_died_disturbs_none_of_its_work() -> None:
    resource = mr.from_spec(POOLS[0])
    one, two = independent_stream(), independent_stream()
    result = DeviceBuffer(size=SIZE, mr=mr.CudaMemoryResource())
    first = filled(1, resource, one)
    queue_copy(result.ptr, first.ptr, one)
    del first, one  # the driver lets the stream's work run on
    second = filled(2, resource, two)
    two.synchronize()
    sim.drain()
    assert result.tobytes() == b"\x01" * SIZE
    assert second.tobytes(two) == b"\x02" * SIZE


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("specification", ["pool:initial=0,max=64KiB | cuda", "pool:initial=0", "async"])
def test_random_work_on_many_streams_comes_out_right(specification: str, seed: int) -> None:
    """Buffers are filled, copied and dropped on streams that lag behind; each copy must show what its source held."""
    chance = random.Random(seed)
    resource = mr.from_spec(specification)
    streams = [independent_stream() for _ in range(4)]
    expected: list[tuple[DeviceBuffer, int, Any]] = []
    for value in range(200):
        stream = chance.choice(streams)
        try:
            source = filled(value % 256, resource, stream)
        except MemoryError:
            expected.clear()
            continue
        result = DeviceBuffer(size=SIZE, stream=stream, mr=mr.CudaMemoryResource())
        result.copy_from_device(source, stream)
        expected.append((result, value % 256, source if chance.random() < 0.3 else None))
        if chance.random() < 0.1:
            chance.choice(streams).synchronize()
        if chance.random() < 0.05:
            streams[chance.randrange(len(streams))] = independent_stream()
        if len(expected) > 12:
            result, wanted, _ = expected.pop(chance.randrange(len(expected)))
            assert result.tobytes(result.stream) == bytes([wanted]) * SIZE, f"seed {seed}, step {value}"
    for result, wanted, _ in expected:
        assert result.tobytes(result.stream) == bytes([wanted]) * SIZE, f"seed {seed}"
    resource.check()
