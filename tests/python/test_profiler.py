"""`cenote.statistics`: what the current resource counts, in scopes, blocks and functions."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
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


@pytest.fixture
def counted() -> Iterator[mr.StatisticsResourceAdaptor]:
    with statistics():
        current = mr.get_current_device_resource()
        assert isinstance(current, mr.StatisticsResourceAdaptor)
        yield current


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


def test_scopes_count_from_nothing_and_fold_into_the_one_around(counted: mr.StatisticsResourceAdaptor) -> None:
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


def test_profiled_functions_and_blocks_are_recorded(counted: mr.StatisticsResourceAdaptor) -> None:
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


def test_default_records_are_written_unless_others_are_named(counted: mr.StatisticsResourceAdaptor) -> None:
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
    counted: mr.StatisticsResourceAdaptor,
) -> None:
    records = ProfilerRecords()
    with profiler(records=records, name="block"):
        cenote.DeviceBuffer(size=3)
        mr.set_current_device_resource(mr.CudaMemoryResource())
        cenote.DeviceBuffer(size=4)
    mr.set_current_device_resource(counted)
    assert records.records == {"block": Record(1, 3, 3)}
    assert counted.allocation_counts == Statistics(0, 0, 3, 1, 3, 1)


def test_exception_passes_through_and_is_recorded(counted: mr.StatisticsResourceAdaptor) -> None:
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


def test_recursion_is_recorded_call_by_call(counted: mr.StatisticsResourceAdaptor) -> None:
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


def test_callables_without_source_can_be_profiled(counted: mr.StatisticsResourceAdaptor) -> None:
    records = ProfilerRecords()
    assert profiler(records=records)(len)([1, 2]) == 2
    assert profiler(records=records)(functools.partial(max, 3))(2) == 3
    assert sorted(records.records) == ["len", "partial"]


def test_threads_records_add_up(counted: mr.StatisticsResourceAdaptor) -> None:
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


def allocate(size: int) -> None:
    cenote.DeviceBuffer(size=size)


def test_a_coroutine_is_recorded_and_what_others_do_meanwhile_is_not(counted: mr.StatisticsResourceAdaptor) -> None:
    records = ProfilerRecords()

    @profiler(records=records, name="function")
    async def part(size: int, times: int) -> int:
        for _ in range(times):
            allocate(size)
            await asyncio.sleep(0)
        return size

    async def block(name: str, size: int, times: int) -> None:
        with profiler(records=records, name=name):
            for _ in range(times):
                kept = cenote.DeviceBuffer(size=size)
                await asyncio.sleep(0)
                del kept

    async def all_of_them() -> None:
        with profiler(records=records, name="all"):
            assert await asyncio.gather(part(1, 3), part(10, 2)) == [1, 10]
            await asyncio.gather(block("A", 100, 3), block("B", 1000, 4))

    assert inspect.iscoroutinefunction(part) and part.__name__ == "part"
    asyncio.run(all_of_them())
    assert records.records == {
        "function": Record(2, 23, 10),
        "A": Record(1, 300, 100),
        "B": Record(1, 4000, 1000),
        "all": Record(1, 4323, 1100),
    }


def test_a_coroutine_that_is_resumed_by_hand_is_recorded_alone(counted: mr.StatisticsResourceAdaptor) -> None:
    records = ProfilerRecords()

    class Pause:
        def __await__(self) -> Iterator[None]:
            yield

    def named(name: str, size: int) -> Any:
        @profiler(records=records, name=name)
        async def part() -> None:
            with profiler(records=records, name=f"block of {name}"):
                allocate(size)
                await Pause()
                allocate(size)

        return part()

    parts = [named("A", 1), named("B", 10)]
    for _ in range(2):
        for part in parts:
            with contextlib.suppress(StopIteration):
                part.send(None)
            allocate(100)
    assert records.records == {
        "A": Record(1, 2, 1),
        "block of A": Record(1, 2, 1),
        "B": Record(1, 20, 10),
        "block of B": Record(1, 20, 10),
    }
    with pytest.raises(IndexError):
        pop_statistics()


def test_a_generator_is_recorded_and_what_others_do_meanwhile_is_not(counted: mr.StatisticsResourceAdaptor) -> None:
    records, seen = ProfilerRecords(), []

    @profiler(records=records, name="generator")
    def generate(size: int) -> Generator[int, str, str]:
        try:
            allocate(size)
            seen.append((yield 1))
            push_statistics()
            allocate(size)
            try:
                yield 2
            except KeyError:
                seen.append("thrown")
            allocate(size)
            assert pop_statistics() == Statistics(0, 0, size, 1, 2 * size, 2)
            yield 3
            return "returned"
        finally:
            allocate(size)

    assert inspect.isgeneratorfunction(generate)
    whole = generate(10)
    assert next(whole) == 1
    allocate(1000)
    assert whole.send("sent") == 2
    allocate(1000)
    assert whole.throw(KeyError()) == 3
    allocate(1000)
    with pytest.raises(StopIteration) as stop:
        next(whole)
    assert (seen, stop.value.value) == (["sent", "thrown"], "returned")
    assert records.records == {"generator": Record(1, 40, 10)}

    closed = generate(10)
    next(closed)
    closed.close()
    assert records.records == {"generator": Record(2, 60, 10)}
    dropped = generate(10)
    next(dropped)
    del dropped
    assert records.records == {"generator": Record(3, 80, 10)}


def test_an_asynchronous_generator_is_recorded(counted: mr.StatisticsResourceAdaptor) -> None:
    records, seen = ProfilerRecords(), []

    @profiler(records=records, name="generator")
    async def generate() -> AsyncGenerator[int, str]:
        try:
            allocate(10)
            seen.append((yield 1))
            await asyncio.sleep(0)
            allocate(10)
            try:
                yield 2
            except KeyError:
                seen.append("thrown")
            yield 3
        finally:
            await asyncio.sleep(0)
            allocate(10)

    async def ask() -> None:
        values = generate()
        assert await anext(values) == 1
        allocate(1000)
        assert await values.asend("sent") == 2
        assert await values.athrow(KeyError()) == 3
        allocate(1000)
        assert [value async for value in values] == []
        abandoned = generate()
        await anext(abandoned)
        await abandoned.aclose()

    async def others() -> None:
        for _ in range(10):
            allocate(1000)
            await asyncio.sleep(0)

    async def both() -> None:
        await asyncio.gather(ask(), others())

    assert inspect.isasyncgenfunction(generate)
    asyncio.run(both())
    assert seen == ["sent", "thrown"]
    assert records.records == {"generator": Record(2, 50, 10)}


def test_whatever_comes_to_a_coroutine_is_recorded_as_one(counted: mr.StatisticsResourceAdaptor) -> None:
    records = ProfilerRecords()

    async def function(size: int) -> None:
        await asyncio.sleep(0)
        allocate(size)

    class Called:
        async def __call__(self, size: int) -> None:
            await function(size)

        async def method(self, size: int) -> None:
            await function(size)

    @functools.wraps(function)
    def wrapper(size: int) -> Any:
        return function(size)

    callables = {
        "partial": functools.partial(function, 10),
        "object": functools.partial(Called(), 10),
        "method": functools.partial(Called().method, 10),
        "wrapper": functools.partial(wrapper, 10),
    }
    for name, called in callables.items():
        asyncio.run(profiler(records=records, name=name)(called)())
    assert records.records == dict.fromkeys(callables, Record(1, 10, 10))


def test_tasks_and_their_threads_count_in_the_scopes_they_were_started_in(
    counted: mr.StatisticsResourceAdaptor,
) -> None:
    async def child(size: int) -> Statistics | None:
        push_statistics()
        await asyncio.sleep(0)
        kept = cenote.DeviceBuffer(size=size)
        await asyncio.to_thread(allocate, 1)
        await asyncio.sleep(0)
        del kept
        return pop_statistics()

    async def parent() -> Statistics | None:
        push_statistics()
        await asyncio.gather(child(100), child(1000))
        thread = threading.Thread(target=allocate, args=(10_000,))
        thread.start()
        thread.join()
        return pop_statistics()

    counts = asyncio.run(parent())
    assert counts is not None and (counts.total_bytes, counts.total_count) == (1102, 4)
    assert counts.peak_bytes >= 1100
    assert get_statistics() == counted.allocation_counts
    with pytest.raises(IndexError):
        pop_statistics()


def test_what_a_task_does_after_the_scope_has_ended_is_not_counted_there(
    counted: mr.StatisticsResourceAdaptor,
) -> None:
    records = ProfilerRecords()

    async def late(go: asyncio.Event) -> None:
        await go.wait()
        allocate(10)

    async def parent() -> None:
        go = asyncio.Event()
        with profiler(records=records, name="block"):
            task = asyncio.create_task(late(go))
        go.set()
        await task

    asyncio.run(parent())
    assert records.records == {"block": Record(1, 0, 0)}


def test_a_block_may_end_in_another_context(counted: mr.StatisticsResourceAdaptor) -> None:
    records = ProfilerRecords()
    block = profiler(records=records, name="block")
    contextvars.copy_context().run(block.__enter__)
    allocate(10)
    block.__exit__(None, None, None)
    assert records.records == {"block": Record(1, 0, 0)}
    with pytest.raises(RuntimeError, match="entered"):
        block.__exit__(None, None, None)
