"""The statistics adaptor: bytes and allocations, current, peak and total."""

from __future__ import annotations

import pytest

import cenote
from cenote import Statistics, mr


@pytest.fixture
def counted() -> mr.StatisticsResourceAdaptor:
    return mr.StatisticsResourceAdaptor(mr.PoolMemoryResource(mr.CudaMemoryResource(), 0, "8MiB"))


def test_nothing_is_counted_before_the_first_allocation(counted: mr.StatisticsResourceAdaptor) -> None:
    assert counted.allocation_counts == Statistics(0, 0, 0, 0, 0, 0)


def test_bytes_are_counted_as_requested(counted: mr.StatisticsResourceAdaptor) -> None:
    first, second = counted.allocate(100), counted.allocate(1)
    assert counted.allocation_counts == Statistics(
        current_bytes=101, current_count=2, peak_bytes=101, peak_count=2, total_bytes=101, total_count=2
    )
    counted.deallocate(first, 100)
    counted.deallocate(counted.allocate(50), 50)
    counted.deallocate(second, 1)
    assert counted.allocation_counts == Statistics(
        current_bytes=0, current_count=0, peak_bytes=101, peak_count=2, total_bytes=151, total_count=3
    )


def test_zero_bytes_and_failures_are_not_counted(counted: mr.StatisticsResourceAdaptor) -> None:
    counted.deallocate(counted.allocate(0), 0)
    with pytest.raises(MemoryError):
        counted.allocate(2**40)
    assert counted.allocation_counts == Statistics(0, 0, 0, 0, 0, 0)


def test_pushed_counters_start_at_nothing_and_fold_into_those_below(counted: mr.StatisticsResourceAdaptor) -> None:
    outer = counted.allocate(100)
    assert counted.push_counters() == Statistics(100, 1, 100, 1, 100, 1)
    assert counted.allocation_counts == Statistics(0, 0, 0, 0, 0, 0)
    counted.deallocate(counted.allocate(50), 50)
    assert counted.pop_counters() == Statistics(0, 0, 50, 1, 50, 1)
    assert counted.allocation_counts == Statistics(100, 1, 150, 2, 150, 2)
    counted.deallocate(outer, 100)


def test_freeing_what_was_there_before_the_push_is_negative(counted: mr.StatisticsResourceAdaptor) -> None:
    outer = counted.allocate(100)
    counted.push_counters()
    counted.deallocate(outer, 100)
    assert counted.pop_counters() == Statistics(-100, -1, 0, 0, 0, 0)
    assert counted.allocation_counts == Statistics(0, 0, 100, 1, 100, 1)


def test_last_counters_cannot_be_popped(counted: mr.StatisticsResourceAdaptor) -> None:
    with pytest.raises(IndexError, match="last counter"):
        counted.pop_counters()
    counted.push_counters()
    counted.pop_counters()
    with pytest.raises(IndexError):
        counted.pop_counters()


def test_statistics_cannot_be_changed(counted: mr.StatisticsResourceAdaptor) -> None:
    with pytest.raises(AttributeError):
        counted.allocation_counts.peak_bytes = 0  # type: ignore[misc]


def test_all_devices_and_streams_are_counted_apart() -> None:
    stacks = [mr.from_spec("statistics | pool:initial=0 | cuda", device) for device in (0, 1)]
    addresses = [stack.allocate(1000) for stack in stacks]
    for stack, address in zip(stacks, addresses, strict=True):
        assert isinstance(stack, mr.StatisticsResourceAdaptor)
        assert stack.allocation_counts.current_bytes == 1000
        stack.deallocate(address, 1000)


def test_buffers_are_counted_as_they_live(counted: mr.StatisticsResourceAdaptor) -> None:
    buffer = cenote.DeviceBuffer(size=1000, mr=counted)
    assert counted.allocation_counts.current_bytes == 1000
    del buffer
    assert counted.allocation_counts == Statistics(0, 0, 1000, 1, 1000, 1)


def test_every_device_is_counted_also_one_that_is_used_later() -> None:
    mr.reset_all_device_resources()
    mr.get_per_device_resource(1)
    cenote.statistics.enable_statistics()
    cenote.statistics.enable_statistics()
    for device in (0, 1):
        assert mr.get_per_device_resource(device).specification == "statistics | cuda"
