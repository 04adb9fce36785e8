"""`cenote.statistics`: what the current resource counts, in scopes, blocks and functions."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

import cenote
from cenote import Statistics, mr
from cenote.statistics import (
    ProfilerRecords,
    _describe,
    default_profiler_records,
    enable_statistics,
    get_statistics,
    pop_statistics,
    profiler,
    push_statistics,
    statistics,
)

Record = ProfilerRecords.MemoryRecord
NOTHING = Statistics(0, 0, 0, 0, 0, 0)


def test_without_statistics_there_are_none() -> None:
    before = mr.get_current_device_resource()
    assert (get_statistics(), push_statistics(), pop_statistics()) == (None, None, None)
    assert mr.get_current_device_resource() is before


def test_enabling_twice_counts_once() -> None:
    before = mr.get_current_device_resource()
    enable_statistics()
    counting = mr.get_current_device_resource()
    enable_statistics()
    assert mr.get_current_device_resource() is counting
    assert isinstance(counting, mr.StatisticsResourceAdaptor) and counting.upstream_mr is before
    assert get_statistics() == NOTHING


def test_each_device_is_counted_for_itself(on_device: Callable[[int], AbstractContextManager[None]]) -> None:
    enable_statistics()
    buffer = cenote.DeviceBuffer(size=10)
    with on_device(1):
        assert get_statistics() == NOTHING
    del buffer


def test_scopes_count_from_nothing_and_fold_into_the_one_around(counted_current: mr.StatisticsResourceAdaptor) -> None:
    first = cenote.DeviceBuffer(size=10)
    assert get_statistics() == Statistics(10, 1, 10, 1, 10, 1)
    second = cenote.DeviceBuffer(size=20)
    assert push_statistics() == Statistics(30, 2, 30, 2, 30, 2)
    assert get_statistics() == NOTHING
    del first
    assert pop_statistics() == Statistics(-10, -1, 0, 0, 0, 0)
    del second
    assert get_statistics() == Statistics(0, 0, 30, 2, 30, 2)
    with pytest.raises(IndexError, match="cannot pop the last counter pair"):
        pop_statistics()


@pytest.mark.parametrize("above", ["logging", "pool"])
def test_statistics_are_found_wherever_the_adaptor_stands(above: str, tmp_path: Any) -> None:
    counting = mr.StatisticsResourceAdaptor(mr.CudaMemoryResource())
    outer = (
        mr.PoolMemoryResource(counting, 0) if above == "pool" else mr.LoggingResourceAdaptor(counting, tmp_path / "log")
    )
    mr.set_current_device_resource(outer)
    enable_statistics()
    assert mr.get_current_device_resource() is outer
    buffer = cenote.DeviceBuffer(size=2 * 1024**2)
    counts = get_statistics()
    assert counts is not None and counts.current_bytes == buffer.nbytes
    with statistics():
        assert get_statistics() == NOTHING
    records = ProfilerRecords()
    with profiler(records=records, name="block"):
        mr.get_current_device_resource().deallocate(mr.get_current_device_resource().allocate(0), 0)
    assert records.records == {"block": Record(1, 0, 0)}


def test_block_counts_what_it_allocates_and_leaves_the_resource_as_it_was() -> None:
    before = mr.get_current_device_resource()
    with statistics():
        counting = mr.get_current_device_resource()
        assert isinstance(counting, mr.StatisticsResourceAdaptor)
        first = cenote.DeviceBuffer(size=20)
        assert get_statistics() == Statistics(20, 1, 20, 1, 20, 1)
        with statistics():
            assert mr.get_current_device_resource() is counting
            second = cenote.DeviceBuffer(size=10)
            assert get_statistics() == Statistics(10, 1, 10, 1, 10, 1)
        assert get_statistics() == Statistics(30, 2, 30, 2, 30, 2)
        del first, second
    assert mr.get_current_device_resource() is before


def test_block_that_raises_leaves_the_resource_as_it_was() -> None:
    before = mr.get_current_device_resource()
    with pytest.raises(ZeroDivisionError), statistics(), statistics():
        _ = 1 / 0
    assert mr.get_current_device_resource() is before


@pytest.mark.parametrize("enabled", [False, True])
def test_changing_the_resource_in_a_block_is_a_value_error(enabled: bool) -> None:
    if enabled:
        enable_statistics()
    counting = mr.get_current_device_resource()
    other = mr.CudaMemoryResource()
    with pytest.raises(ValueError, match="current resource was changed"), statistics():
        mr.set_current_device_resource(other)
    assert mr.get_current_device_resource() is other
    if isinstance(counting, mr.StatisticsResourceAdaptor):
        with pytest.raises(IndexError):
            counting.pop_counters()  # the block's scope is closed


def test_block_may_be_left_on_another_device(on_device: Callable[[int], AbstractContextManager[None]]) -> None:
    before = mr.get_current_device_resource()
    block = statistics()
    block.__enter__()
    with on_device(1):
        block.__exit__(None, None, None)
    assert mr.get_current_device_resource() is before


def test_profiled_functions_and_blocks_are_recorded(counted_current: mr.StatisticsResourceAdaptor) -> None:
    records = ProfilerRecords()

    @profiler(records=records)
    def make() -> cenote.DeviceBuffer:
        first = cenote.DeviceBuffer(size=10)
        second = cenote.DeviceBuffer(size=10)
        del first
        return second

    @profiler(records=records)
    def outer() -> cenote.DeviceBuffer:
        kept = cenote.DeviceBuffer(size=10)

        @profiler(records=records, name="inner")
        def inner() -> cenote.DeviceBuffer:
            return cenote.DeviceBuffer(size=5)

        return [kept, inner()][1]

    held = [make(), make()]
    for _ in range(3):
        outer()
    with profiler(records=records, name="block"):
        held.append(cenote.DeviceBuffer(size=100))
        with profiler(records=records, name="frees"):
            held.clear()
    assert records.records == {
        _describe(make): Record(num_calls=2, memory_total=40, memory_peak=20),
        _describe(outer): Record(num_calls=3, memory_total=45, memory_peak=15),
        "inner": Record(num_calls=3, memory_total=15, memory_peak=5),
        "block": Record(num_calls=1, memory_total=100, memory_peak=100),
        "frees": Record(num_calls=1, memory_total=0, memory_peak=0),
    }
    assert get_statistics() == Statistics(0, 0, 120, 4, 185, 11)


def test_default_records_are_written_unless_others_are_named(counted_current: mr.StatisticsResourceAdaptor) -> None:
    with profiler(name="of the default records"):
        cenote.DeviceBuffer(size=7)
    assert default_profiler_records.records["of the default records"] == Record(1, 7, 7)


def test_nothing_is_recorded_while_nothing_is_counted() -> None:
    records = ProfilerRecords()

    @profiler(records=records)
    def function() -> int:
        cenote.DeviceBuffer(size=10)
        return 1

    assert function() == 1
    with profiler(records=records, name="block"):
        pass
    assert records.records == {}


def test_enabling_in_a_profiled_block_does_no_harm() -> None:
    records = ProfilerRecords()
    with profiler(records=records, name="outer"):
        enable_statistics()
        with profiler(records=records, name="inner"):
            cenote.DeviceBuffer(size=3)
    assert records.records == {"inner": Record(1, 3, 3)}


def test_replacing_the_resource_in_a_profiled_block_closes_the_right_scope(
    counted_current: mr.StatisticsResourceAdaptor,
) -> None:
    records = ProfilerRecords()
    with profiler(records=records, name="block"):
        cenote.DeviceBuffer(size=3)
        mr.set_current_device_resource(mr.CudaMemoryResource())
        cenote.DeviceBuffer(size=4)
    mr.set_current_device_resource(counted_current)
    assert records.records == {"block": Record(1, 3, 3)}
    assert counted_current.allocation_counts == Statistics(0, 0, 3, 1, 3, 1)


def test_exception_passes_through_and_is_recorded(counted_current: mr.StatisticsResourceAdaptor) -> None:
    records = ProfilerRecords()

    @profiler(records=records, name="raises")
    def function() -> None:
        cenote.DeviceBuffer(size=10)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        function()
    assert records.records == {"raises": Record(1, 10, 10)}
    with pytest.raises(IndexError):
        pop_statistics()


def test_recursion_is_recorded_call_by_call(counted_current: mr.StatisticsResourceAdaptor) -> None:
    records = ProfilerRecords()

    @profiler(records=records, name="recursive")
    def function(depth: int) -> None:
        buffer = cenote.DeviceBuffer(size=10)
        if depth > 1:
            function(depth - 1)
        del buffer

    function(3)
    assert records.records == {"recursive": Record(3, 60, 30)}


def test_block_without_a_name_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="name"), profiler():
        pass


def test_decorated_function_keeps_its_name_and_documentation() -> None:
    @profiler()
    def function() -> None:
        """Documentation."""

    assert (function.__name__, function.__doc__) == ("function", "Documentation.")
    assert _describe(function).startswith(f"{__file__}:")
    assert _describe(function).endswith("(test_decorated_function_keeps_its_name_and_documentation.<locals>.function)")


def test_callables_without_source_can_be_profiled(counted_current: mr.StatisticsResourceAdaptor) -> None:
    records = ProfilerRecords()
    assert profiler(records=records)(len)([1, 2]) == 2
    assert profiler(records=records)(functools.partial(max, 3))(2) == 3
    assert sorted(records.records) == ["len", "partial"]


def test_threads_records_add_up(counted_current: mr.StatisticsResourceAdaptor) -> None:
    records, data = ProfilerRecords(), Statistics(0, 0, 2, 1, 3, 1)

    def work() -> None:
        for _ in range(1000):
            records.add("shared", data)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert records.records == {"shared": Record(num_calls=4000, memory_total=12000, memory_peak=2)}


def test_records_are_a_copy() -> None:
    records = ProfilerRecords()
    records.add("one", NOTHING)
    records.records["one"].num_calls = 7
    records.records.clear()
    assert records.records == {"one": Record(1, 0, 0)}
    assert repr(records) == f"ProfilerRecords({records.records})"


REPORT = """\
Memory Profiling
================

  ncalls        how often the function or block ran
  memory_peak   the most bytes that one run held at a time
  memory_total  bytes that all runs together allocated

Ordered by: memory_peak

ncalls  memory_peak   memory_total  filename:lineno(function)
     1    1,000,000      1,000,000  large
     2           10  1,234,567,890  a/long/path.py:12(function)"""


def test_report_is_a_table_with_a_legend() -> None:
    records = ProfilerRecords()
    records.add("a/long/path.py:12(function)", Statistics(0, 0, 10, 1, 1_234_567_880, 1))
    records.add("a/long/path.py:12(function)", Statistics(0, 0, 10, 1, 10, 1))
    records.add("large", Statistics(0, 0, 1_000_000, 1, 1_000_000, 1))
    assert records.report() == str(records) == REPORT


@pytest.mark.parametrize("ordered_by", ["num_calls", "memory_peak", "memory_total"])
def test_report_is_ordered_by_any_column(ordered_by: Any) -> None:
    records = ProfilerRecords()
    for calls, total, peak, name in [(1, 5, 3, "total"), (1, 4, 4, "peak"), (2, 1, 1, "calls")]:
        for _ in range(calls):
            records.add(name, Statistics(0, 0, peak, 1, total, 1))
    report = records.report(ordered_by=ordered_by)
    assert report.splitlines()[-3].endswith(ordered_by.replace("num_", "").replace("memory_", ""))


def test_report_of_nothing_says_so() -> None:
    assert ProfilerRecords().report().endswith("No data, maybe profiling wasn't enabled?")


def test_report_by_no_column_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="ordered_by must be one of"):
        ProfilerRecords().report(ordered_by="name")  # type: ignore[arg-type]


def test_a_finalizer_may_record_while_its_thread_records() -> None:
    records = ProfilerRecords()

    class Name(str):
        """Runs Python in the midst of `add`, as the collector may."""

        has_run = False

        def __hash__(self) -> int:
            if not self.has_run:
                self.has_run = True
                records.add("within", NOTHING)
                assert records.records == {"within": Record(1, 0, 0)}
            return super().__hash__()

    adding = threading.Thread(target=lambda: records.add(Name("around"), NOTHING), daemon=True)
    adding.start()
    adding.join(60)
    assert not adding.is_alive()
    assert set(records.records) == {"within", "around"}
