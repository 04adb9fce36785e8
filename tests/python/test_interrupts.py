"""What is no Exception, such as Ctrl-C in a function of the program's, arrives where cenote was called."""

from __future__ import annotations

import functools
import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import cenote
from cenote import mr
from cenote.registry import Client


class MyInterrupt(BaseException):
    """As frameworks have them: asyncio's CancelledError, trio's Cancelled, the outcomes of pytest."""


MIB = 1024**2
INTERRUPTS = (KeyboardInterrupt, SystemExit, GeneratorExit, MyInterrupt)

# Everything that may stand between the function and who called.
STACKS: dict[str, Callable[[mr.DeviceMemoryResource], mr.DeviceMemoryResource]] = {
    "alone": lambda resource: resource,
    "aligned": mr.AlignedResourceAdaptor,
    "binning": functools.partial(mr.BinningMemoryResource, min_size_exponent=-1, max_size_exponent=-1),
    "failure_callback": lambda resource: mr.FailureCallbackResourceAdaptor(resource, lambda nbytes: False),
    "guard": mr.GuardResourceAdaptor,
    "limiting": lambda resource: mr.LimitingResourceAdaptor(resource, "1GiB"),
    "prefetch": mr.PrefetchResourceAdaptor,
    "statistics": mr.StatisticsResourceAdaptor,
    "thread_safe": mr.ThreadSafeResourceAdaptor,
    "tracking": lambda resource: mr.TrackingResourceAdaptor(resource, capture_stacks=True),
}
POOLS: dict[str, Callable[[mr.DeviceMemoryResource], mr.DeviceMemoryResource]] = {
    "pool": lambda resource: mr.PoolMemoryResource(resource, 0),
    "fixed_size": lambda resource: mr.FixedSizeMemoryResource(resource, 4096, 0),
    "bins": lambda resource: mr.BinningMemoryResource(resource, 8, 12),
}


class Program:
    """Functions that take from a pool, and raise what they are told to."""

    def __init__(self) -> None:
        self.base = mr.PoolMemoryResource(mr.CudaMemoryResource(), "1MiB")
        self.raised_by_allocate: BaseException | None = None
        self.raised_by_deallocate: BaseException | None = None
        self.resource = mr.CallbackMemoryResource(self.allocate, self.deallocate)

    def allocate(self, size: int, stream: cenote.Stream) -> int:
        if self.raised_by_allocate is not None:
            raise self.raised_by_allocate
        return self.base.allocate(size, stream)

    def deallocate(self, ptr: int, size: int, stream: cenote.Stream) -> None:
        self.base.deallocate(ptr, size, stream)
        if self.raised_by_deallocate is not None:
            raise self.raised_by_deallocate


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What nobody could be told of."""
    values: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: values.append(report.exc_value))
    return values


@pytest.mark.parametrize("interrupt", INTERRUPTS)
@pytest.mark.parametrize("stack", [*STACKS, *POOLS])
def test_an_interrupt_of_an_allocate_function_is_the_callers(stack: str, interrupt: type[BaseException]) -> None:
    program = Program()
    resource = (STACKS | POOLS)[stack](program.resource)
    raised = program.raised_by_allocate = interrupt("text")
    mr.set_current_device_resource(resource)
    for call in (
        lambda: resource.allocate(100),
        lambda: cenote.DeviceBuffer(size=100, mr=resource),
        lambda: cenote.DeviceBuffer(size=100),
        lambda: cenote.DeviceBuffer.to_device(b"bytes"),
        lambda: Client("test").allocate(100),
    ):
        with pytest.raises(interrupt) as caught:
            call()
        assert caught.value is raised
    assert program.base.in_use() == 0
    resource.check()


def test_base_exception_itself_is_an_error_like_any_other() -> None:
    program = Program()
    raised = program.raised_by_allocate = BaseException("text")
    with pytest.raises(RuntimeError, match="text") as caught:
        program.resource.allocate(100)
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize("interrupt", INTERRUPTS)
def test_an_interrupt_of_a_failure_callback_is_the_callers(interrupt: type[BaseException]) -> None:
    raised = interrupt("text")

    def callback(nbytes: int) -> bool:
        raise raised

    limited = mr.LimitingResourceAdaptor(mr.CudaMemoryResource(), 1000)
    asking = mr.FailureCallbackResourceAdaptor(limited, callback)
    for resource in (asking, mr.PoolMemoryResource(asking, 0), mr.StatisticsResourceAdaptor(asking)):
        with pytest.raises(interrupt) as caught:
            resource.allocate(10_000)
        assert caught.value is raised


@pytest.mark.parametrize("interrupt", INTERRUPTS)
@pytest.mark.parametrize("stack", STACKS)
def test_an_interrupt_of_a_deallocate_function_is_the_callers(
    stack: str, interrupt: type[BaseException], reported: list[Any]
) -> None:
    program = Program()
    resource = STACKS[stack](program.resource)
    mr.set_current_device_resource(resource)
    client = Client("test")
    blocks = [resource.allocate(100), client.allocate(100)]
    buffers = [cenote.DeviceBuffer(size=100, mr=resource) for _ in range(3)]
    raised = program.raised_by_deallocate = interrupt("text")
    for call in (
        lambda: resource.deallocate(blocks[0], 100),
        lambda: client.deallocate(blocks[1]),
        lambda: buffers[0].close(),
        lambda: buffers[1].resize(1000),
        lambda: buffers[2].reserve(1000),
    ):
        with pytest.raises(interrupt) as caught:
            call()
        assert caught.value is raised
    program.raised_by_deallocate = None
    assert [buffer.size for buffer in buffers] == [0, 1000, 100]
    buffers.clear()
    assert program.base.in_use() == 0, "the memory counts as freed"
    assert reported == []
    resource.check()


def test_an_interrupt_in_a_trim_is_the_callers(reported: list[Any]) -> None:
    program = Program()
    pool = mr.PoolMemoryResource(program.resource, 0)
    pool.deallocate(pool.allocate(100), 100)
    raised = program.raised_by_deallocate = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt) as caught:
        pool.trim()
    assert caught.value is raised and reported == []
    assert pool.pool_size() == 0


@pytest.mark.parametrize("call", ["allocate", "buffer", "client"])
def test_an_interrupt_in_a_free_within_an_allocation_is_the_callers_and_leaks_nothing(
    call: str, reported: list[Any]
) -> None:
    program = Program()
    program.base = mr.PoolMemoryResource(mr.CudaMemoryResource(), 0)
    pool = mr.PoolMemoryResource(program.resource, 0, "4MiB")
    mr.set_current_device_resource(pool)
    pool.deallocate(pool.allocate(100), 100)  # a chunk that must go before one of 4 MiB can come
    cenote.driver.synchronize(0)
    raised = program.raised_by_deallocate = KeyboardInterrupt()
    calls: dict[str, Callable[[], Any]] = {
        "allocate": lambda: pool.allocate(4 * MIB),
        "buffer": lambda: cenote.DeviceBuffer(size=4 * MIB),
        "client": lambda: Client("test").allocate(4 * MIB),
    }
    with pytest.raises(KeyboardInterrupt) as caught:
        calls[call]()
    program.raised_by_deallocate = None
    assert caught.value is raised and reported == []
    assert pool.in_use() == 0


@pytest.mark.parametrize("interrupt", INTERRUPTS)
def test_where_an_object_dies_an_interrupt_is_reported(interrupt: type[BaseException], reported: list[Any]) -> None:
    program = Program()
    buffer = cenote.DeviceBuffer(size=100, mr=program.resource)
    cycle: list[Any] = [cenote.DeviceBuffer(size=100, mr=program.resource)]
    cycle.append(cycle)
    pool = mr.PoolMemoryResource(program.resource, 0)
    pool.deallocate(pool.allocate(100), 100)
    raised = program.raised_by_deallocate = interrupt("text")
    del buffer
    assert reported == [raised]
    del cycle
    gc.collect()
    assert reported == [raised] * 2
    del pool
    assert reported == [raised] * 3
    program.raised_by_deallocate = None
    assert program.base.in_use() == 0


def test_an_object_that_dies_within_a_call_does_not_interrupt_it(reported: list[Any]) -> None:
    program, inner = Program(), Program()
    buffers = [cenote.DeviceBuffer(size=100, mr=inner.resource)]
    raised = inner.raised_by_deallocate = KeyboardInterrupt()
    functions = program.resource.allocate_func, program.resource.deallocate_func

    def allocate(size: int, stream: cenote.Stream) -> int:
        buffers.clear()
        return functions[0](size, stream)

    resource = mr.CallbackMemoryResource(allocate, functions[1])
    block = resource.allocate(100)
    assert reported == [raised]
    resource.deallocate(block, 100)


def test_a_call_within_a_function_is_interrupted_itself(reported: list[Any]) -> None:
    program, inner = Program(), Program()
    block = inner.resource.allocate(100)
    raised = inner.raised_by_deallocate = KeyboardInterrupt()
    seen: list[BaseException] = []

    def deallocate(ptr: int, size: int, stream: cenote.Stream) -> None:
        program.deallocate(ptr, size, stream)
        with pytest.raises(KeyboardInterrupt) as caught:
            inner.resource.deallocate(block, 100)
        seen.append(caught.value)

    resource = mr.CallbackMemoryResource(program.allocate, deallocate)
    resource.deallocate(resource.allocate(100), 100)
    assert seen == [raised] and reported == []


def test_an_exception_that_is_handled_meanwhile_stays_as_it_is() -> None:
    program = Program()
    block = program.resource.allocate(100)
    before = KeyError("before")
    raised = program.raised_by_deallocate = KeyboardInterrupt()
    try:
        raise before
    except KeyError as handled:
        with pytest.raises(KeyboardInterrupt):
            program.resource.deallocate(block, 100)
        assert sys.exc_info()[1] is handled
    assert raised.__traceback__ is not None


@pytest.mark.parametrize("where", ["main", "thread"])
def test_sys_exit_in_a_deallocate_function_runs_what_is_in_finally(
    where: str, run_fresh: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = run_fresh(f"""
        import faulthandler, sys, threading
        from cenote import mr

        faulthandler.dump_traceback_later(60, exit=True)
        base = mr.PoolMemoryResource(mr.CudaMemoryResource(), "1MiB")
        resource = mr.CallbackMemoryResource(lambda size, stream: base.allocate(size, stream),
                                             lambda ptr, size, stream: sys.exit(3))
        block = resource.allocate(10)

        def free():
            try:
                resource.deallocate(block, 10)
            finally:
                print("finally")

        if {where!r} == "main":
            try:
                free()
            except SystemExit as stop:
                assert stop.code == 3
        else:
            thread = threading.Thread(target=free)
            thread.start()
            thread.join()
        print("goes on")
    """)
    assert done.stdout == "finally\ngoes on\n", done.stderr


def test_an_interrupt_in_one_thread_is_no_other_threads() -> None:
    program = Program()
    arrived: list[BaseException] = []
    barrier = threading.Barrier(2)

    class Stop(BaseException):
        pass

    def deallocate(ptr: int, size: int, stream: cenote.Stream) -> None:
        program.deallocate(ptr, size, stream)
        barrier.wait(60)
        if threading.current_thread() is interrupted:
            raise Stop

    resource = mr.CallbackMemoryResource(program.allocate, deallocate)
    blocks = [resource.allocate(100), resource.allocate(100)]

    def free() -> None:
        try:
            resource.deallocate(blocks[0], 100)
        except Stop as stop:
            arrived.append(stop)

    interrupted = threading.Thread(target=free)
    interrupted.start()
    resource.deallocate(blocks[1], 100)
    interrupted.join()
    assert len(arrived) == 1
