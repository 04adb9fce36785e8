"""The guard adaptor: writes outside of a block are found."""

from __future__ import annotations

from typing import Any

import pytest

import cenote
from cenote import mr
from cenote.device_buffer import copy_host_to_ptr
from growing_pool import pool

MIB = 1024**2


def write(address: int, size: int) -> None:
    """As a kernel would that goes astray."""
    copy_host_to_ptr(b"\x01" * size, address)
    cenote.DEFAULT_STREAM.synchronize()


# A report is made once a process: no two blocks are of one size.
@pytest.mark.parametrize(
    ("stack", "size"),
    [("guard | cuda", 1998), ("guard | pool:initial=0 | cuda", 1999), ("statistics | guard:bytes=32 | cuda", 2000)],
)
@pytest.mark.parametrize("offset", [-1, -32, 2000, 2020])
def test_a_write_outside_of_a_block_is_found_when_the_block_is_freed(
    stack: str, size: int, offset: int, capfd: pytest.CaptureFixture[str]
) -> None:
    resource: Any = mr.from_spec(stack)
    guard = resource if isinstance(resource, mr.GuardResourceAdaptor) else resource.upstream_mr
    block = resource.allocate(size)
    write(block + offset, 1)
    assert guard.overruns_found == 0
    resource.deallocate(block, size)
    assert guard.overruns_found == 1
    reported = capfd.readouterr().err
    assert f"1 byte was written outside of the block of {size} bytes at {block:#x}" in reported
    assert f"the first at offset {offset}" in reported


def test_overruns_are_found_on_demand_and_counted_once() -> None:
    guard = mr.GuardResourceAdaptor(pool())
    blocks = [guard.allocate(size) for size in (1, 100, 10_000)]
    assert guard.find_overruns() == []
    write(blocks[1] + 100, 4)
    write(blocks[1] - 2, 2)
    (found,) = guard.find_overruns()
    assert "6 bytes were written outside of the block of 100 bytes" in found
    assert "at offset -2, before its start" in found
    assert guard.overruns_found == 1
    for block, size in zip(blocks, (1, 100, 10_000), strict=True):
        guard.deallocate(block, size)
    assert guard.overruns_found == 1
    assert guard.find_overruns() == []


def test_a_report_says_where_the_block_was_allocated_if_stacks_are_captured() -> None:
    guard = mr.GuardResourceAdaptor(mr.TrackingResourceAdaptor(pool(), capture_stacks=True))
    block = guard.allocate(100)
    write(block + 100, 1)
    (found,) = guard.find_overruns()
    assert "test_a_report_says_where_the_block_was_allocated" in found
    guard.deallocate(block, 100)


def test_correct_programs_have_no_overrun() -> None:
    guard = mr.GuardResourceAdaptor(pool(), guard_bytes=1)
    for size in (1, 255, 256, 257, MIB):
        stream = cenote.Stream()
        buffer = cenote.DeviceBuffer(size=size, stream=stream, mr=guard)
        buffer.copy_from_host(b"\xff" * size, stream=stream)
        assert buffer.tobytes(stream=stream) == b"\xff" * size
        assert guard.find_overruns() == []
        del buffer
    assert guard.overruns_found == 0


def test_a_guard_has_its_size_in_its_specification() -> None:
    assert mr.GuardResourceAdaptor(mr.CudaMemoryResource()).specification == "guard | cuda"
    small = mr.GuardResourceAdaptor(mr.CudaMemoryResource(), 16)
    assert small.specification == "guard:bytes=16 | cuda"
    assert small.guard_bytes == 16
