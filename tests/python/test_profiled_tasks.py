"""`cenote.statistics` in coroutines, generators and tasks: each is recorded without what others do meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import threading
from collections.abc import AsyncGenerator, Generator, Iterator
from typing import Any

import pytest

import cenote
from cenote import Statistics, mr
from cenote.statistics import (
    ProfilerRecords,
    get_statistics,
    pop_statistics,
    profiler,
    push_statistics,
)

Record = ProfilerRecords.MemoryRecord


def allocate(size: int) -> None:
    cenote.DeviceBuffer(size=size)


def test_a_coroutine_is_recorded_and_what_others_do_meanwhile_is_not(
    counted_current: mr.StatisticsResourceAdaptor,
) -> None:
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


def test_a_coroutine_that_is_resumed_by_hand_is_recorded_alone(counted_current: mr.StatisticsResourceAdaptor) -> None:
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


def test_a_generator_is_recorded_and_what_others_do_meanwhile_is_not(
    counted_current: mr.StatisticsResourceAdaptor,
) -> None:
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


def test_an_asynchronous_generator_is_recorded(counted_current: mr.StatisticsResourceAdaptor) -> None:
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


def test_whatever_comes_to_a_coroutine_is_recorded_as_one(counted_current: mr.StatisticsResourceAdaptor) -> None:
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
    counted_current: mr.StatisticsResourceAdaptor,
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
    assert get_statistics() == counted_current.allocation_counts
    with pytest.raises(IndexError):
        pop_statistics()


def test_what_a_task_does_after_the_scope_has_ended_is_not_counted_there(
    counted_current: mr.StatisticsResourceAdaptor,
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


def test_a_block_may_end_in_another_context(counted_current: mr.StatisticsResourceAdaptor) -> None:
    records = ProfilerRecords()
    block = profiler(records=records, name="block")
    contextvars.copy_context().run(block.__enter__)
    allocate(10)
    block.__exit__(None, None, None)
    assert records.records == {"block": Record(1, 0, 0)}
    with pytest.raises(RuntimeError, match="entered"):
        block.__exit__(None, None, None)
