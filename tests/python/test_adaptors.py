"""Adaptors: tracking, limiting, failure callback, prefetch, aligned, guard, thread-safe; scopes of statistics."""

from __future__ import annotations

import functools
import gc
import inspect
import logging
import re
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import cenote
from cenote import Statistics, mr, sim
from cenote.device_buffer import copy_host_to_ptr

MIB = 1024**2
TOO_MUCH = 2**40

ADAPTORS: tuple[Callable[..., mr.UpstreamResourceAdaptor], ...] = (
    mr.AlignedResourceAdaptor,
    functools.partial(mr.FailureCallbackResourceAdaptor, callback=lambda nbytes: False),
    mr.GuardResourceAdaptor,
    functools.partial(mr.LimitingResourceAdaptor, allocation_limit="1GiB"),
    mr.PrefetchResourceAdaptor,
    mr.StatisticsResourceAdaptor,
    mr.ThreadSafeResourceAdaptor,
    mr.TrackingResourceAdaptor,
    functools.partial(mr.TrackingResourceAdaptor, capture_stacks=True),
)


def pool() -> mr.PoolMemoryResource:
    return mr.PoolMemoryResource(mr.CudaMemoryResource(), 0)


def name(adaptor: Any) -> str:
    return str(getattr(adaptor, "func", adaptor).__name__)


@pytest.mark.parametrize("adaptor", ADAPTORS, ids=name)
@pytest.mark.parametrize("upstream", [mr.CudaMemoryResource, mr.ManagedMemoryResource, pool])
def test_an_adaptor_passes_memory_through(
    adaptor: Callable[..., mr.UpstreamResourceAdaptor], upstream: Callable[[], mr.DeviceMemoryResource]
) -> None:
    under = upstream()
    over = adaptor(under)
    assert over.get_upstream() is over.upstream_mr is under
    assert over.device == under.device
    assert over.is_host_accessible == under.is_host_accessible
    buffer = cenote.DeviceBuffer.to_device(b"some bytes")
    buffer = cenote.DeviceBuffer(ptr=buffer.ptr, size=buffer.size, mr=over)
    assert buffer.tobytes() == b"some bytes"
    assert over.allocate(0) == 0
    over.deallocate(0, 0)
    over.check()


@pytest.mark.parametrize("adaptor", ADAPTORS, ids=name)
def test_an_adaptor_refuses_what_is_no_resource(adaptor: Callable[..., mr.UpstreamResourceAdaptor]) -> None:
    with pytest.raises(TypeError, match=r"^Argument `upstream_mr` must not be None"):
        adaptor(None)
    with pytest.raises(TypeError, match="must be a memory resource, not int"):
        adaptor(5)


@pytest.mark.parametrize("adaptor", ADAPTORS, ids=name)
def test_memory_that_ran_out_leaves_an_adaptor_usable(adaptor: Callable[..., mr.UpstreamResourceAdaptor]) -> None:
    over = adaptor(pool())
    with pytest.raises(cenote.OutOfMemoryError):
        over.allocate(TOO_MUCH)
    with pytest.raises(cenote.OutOfMemoryError):
        over.allocate(2**64 - 1)
    over.deallocate(over.allocate(100), 100)


def test_all_adaptors_stand_on_each_other() -> None:
    stack: mr.DeviceMemoryResource = pool()
    for adaptor in (*ADAPTORS, *reversed(ADAPTORS)):
        stack = adaptor(stack)
    stack.deallocate(stack.allocate(1000), 1000)
    with pytest.raises(cenote.OutOfMemoryError) as raised:
        stack.allocate(TOO_MUCH)
    assert raised.value.limit == 2**30
    stack.check()


def test_a_specification_can_name_the_adaptors_without_functions() -> None:
    text = (
        "tracking:capture_stacks=true | limiting:limit=1GiB | guard:bytes=64 | prefetch | "
        "aligned:alignment=4KiB,threshold=1MiB | cuda"
    )
    resource = mr.from_spec(f"thread_safe | {text}")
    assert resource.specification == f"thread_safe | {text}"
    kinds = []
    while isinstance(resource, mr.UpstreamResourceAdaptor):
        kinds.append(type(resource))
        resource = resource.upstream_mr
    assert kinds == [
        mr.ThreadSafeResourceAdaptor,
        mr.TrackingResourceAdaptor,
        mr.LimitingResourceAdaptor,
        mr.GuardResourceAdaptor,
        mr.PrefetchResourceAdaptor,
        mr.AlignedResourceAdaptor,
    ]


@pytest.mark.parametrize(
    "text", ["limiting", "limiting:limit=x", "limiting:limit=1,alignment=3", "aligned:alignment=0"]
)
def test_a_specification_that_no_adaptor_has_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"limit|power of two"):
        mr.from_spec(text)


# Tracking


def test_outstanding_allocations_are_counted_and_named() -> None:
    tracked = mr.TrackingResourceAdaptor(mr.CudaMemoryResource())
    assert tracked.get_outstanding_allocations_str() == ""
    assert tracked.leak_report() == ""
    first, second = tracked.allocate(1000), tracked.allocate(5000)
    assert tracked.get_allocated_bytes() == 6000
    assert [line.split(",")[0] for line in tracked.get_outstanding_allocations_str().splitlines()] == [
        f"{first:#x}: 1000 B",
        f"{second:#x}: 5000 B",
    ]
    tracked.deallocate(first, 1000)
    assert tracked.get_allocated_bytes() == 5000
    tracked.deallocate(second, 5000)
    assert tracked.get_allocated_bytes() == 0
    assert tracked.get_outstanding_allocations_str() == ""


def allocate_here(resource: mr.DeviceMemoryResource, nbytes: int) -> int:
    return resource.allocate(nbytes)


def test_a_leak_report_names_the_lines_that_allocated() -> None:
    tracked = mr.TrackingResourceAdaptor(pool(), capture_stacks=True)
    held = [(allocate_here(tracked, 2000), 2000) for _ in range(50)]
    buffer = cenote.DeviceBuffer(size=5000, mr=tracked)
    report = tracked.leak_report()
    line = allocate_here.__code__.co_firstlineno + 1
    assert re.search(
        rf"50 allocations, 97.66 KiB \(100000 bytes\) from\n(.*\n)*? +{__file__}:{line} allocate_here\n", report
    )
    assert report.index("50 allocations") < report.index("1 allocation, 4.88 KiB")
    assert report.count(" from\n") == 2  # one call site, however the interpreter got there
    innermost = report[: report.index("1 allocation,")].splitlines()
    python = innermost.index("  Python, innermost last:")
    assert innermost[innermost.index("  C++, innermost first:") - 1].endswith("allocate_here")
    assert any(line.endswith("test_a_leak_report_names_the_lines_that_allocated") for line in innermost[python:])
    for pointer, size in held:
        tracked.deallocate(pointer, size)
    del buffer
    assert tracked.leak_report() == ""


def test_a_deep_stack_is_cut_at_its_outer_end() -> None:
    tracked = mr.TrackingResourceAdaptor(mr.CudaMemoryResource(), capture_stacks=True)

    def deep(levels: int) -> int:
        return deep(levels - 1) if levels else allocate_here(tracked, 100)

    pointer = deep(200)
    report = tracked.leak_report()
    assert "…" in report
    assert report.count(".deep\n") == 63
    assert "allocate_here" in report
    tracked.deallocate(pointer, 100)


def test_stacks_of_many_threads_are_captured_while_others_hold_the_lock_of_python() -> None:
    tracked = mr.TrackingResourceAdaptor(pool(), capture_stacks=True)
    held: list[int] = []

    def work() -> None:
        for _ in range(200):
            held.append(allocate_here(tracked, 256))
            tracked.leak_report() if len(held) % 100 == 0 else None

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracked.get_allocated_bytes() == 800 * 256
    assert "800 allocations" in tracked.leak_report()
    for pointer in held:
        tracked.deallocate(pointer, 256)
    assert tracked.get_allocated_bytes() == 0


def test_outstanding_allocations_are_logged_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    tracked = mr.TrackingResourceAdaptor(mr.CudaMemoryResource())
    with caplog.at_level(logging.DEBUG, logger="cenote"):
        tracked.log_outstanding_allocations()
        assert caplog.records == []
        pointer = tracked.allocate(1234)
        tracked.log_outstanding_allocations()
    assert "1234 B" in caplog.text
    with caplog.at_level(logging.INFO, logger="cenote"):
        caplog.clear()
        tracked.log_outstanding_allocations()
    assert caplog.records == []
    tracked.deallocate(pointer, 1234)


def test_bad_frees_are_reported_with_pointer_and_sizes(capfd: pytest.CaptureFixture[str]) -> None:
    tracked = mr.TrackingResourceAdaptor(mr.CudaMemoryResource(), capture_stacks=True)
    pointer = allocate_here(tracked, 1000)
    tracked.deallocate(pointer, 10)
    reported = capfd.readouterr().err
    assert f"{pointer:#x} was allocated with 1000 bytes and freed with 10" in reported
    assert "allocate_here" in reported
    assert tracked.get_allocated_bytes() == 0
    stranger = tracked.upstream_mr.allocate(77)
    tracked.deallocate(stranger, 77)
    assert f"{stranger:#x} (77 bytes) was freed, but it is not outstanding" in capfd.readouterr().err


# Limiting


@pytest.mark.parametrize(("limit", "expected"), [(MIB, MIB), ("1MiB", MIB), (0, 0), (2**64 - 1, 2**64 - 1)])
def test_the_limit_is_bytes_or_a_text(limit: int | str, expected: int) -> None:
    limited = mr.LimitingResourceAdaptor(mr.CudaMemoryResource(), limit)
    assert limited.get_allocation_limit() == expected
    assert limited.state().limit == expected


@pytest.mark.parametrize(
    ("limit", "error"),
    [
        (None, TypeError),
        (1.5, TypeError),
        (float("nan"), TypeError),
        ([], TypeError),
        (-1, OverflowError),
        (2**64, OverflowError),
        ("2k", ValueError),
    ],
)
def test_a_limit_that_is_none_is_refused(limit: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        mr.LimitingResourceAdaptor(mr.CudaMemoryResource(), limit)


def test_no_byte_beyond_the_limit_is_handed_out() -> None:
    limited = mr.LimitingResourceAdaptor(mr.CudaMemoryResource(), allocation_limit=MIB)
    pointer = limited.allocate(MIB)
    assert limited.get_allocated_bytes() == MIB
    with pytest.raises(cenote.OutOfMemoryError, match="limiting") as raised:
        limited.allocate(1)
    assert (raised.value.limit, raised.value.in_use) == (MIB, MIB)
    limited.deallocate(pointer, MIB)
    assert limited.get_allocated_bytes() == 0


# Failure callback


class MyError(Exception):
    pass


def failing(callback: Any, **settings: Any) -> mr.FailureCallbackResourceAdaptor:
    return mr.FailureCallbackResourceAdaptor(pool(), callback, **settings)


def test_a_callback_of_one_argument_gets_the_bytes() -> None:
    asked: list[int] = []

    def callback(nbytes: int) -> bool:
        asked.append(nbytes)
        return len(asked) < 2

    with pytest.raises(MemoryError):
        failing(callback).allocate(TOO_MUCH)
    assert asked == [TOO_MUCH, TOO_MUCH]


def test_a_callback_of_three_arguments_gets_bytes_stream_and_try() -> None:
    asked: list[tuple[int, cenote.Stream, int]] = []

    def callback(nbytes: int, stream: cenote.Stream, tries: int) -> bool:
        asked.append((nbytes, stream, tries))
        return tries < 3

    stream = cenote.Stream()
    with pytest.raises(MemoryError):
        failing(callback).allocate(TOO_MUCH, stream)
    assert asked == [(TOO_MUCH, stream, tries) for tries in (1, 2, 3)]
    assert all(type(on) is cenote.Stream for _, on, _ in asked)


@pytest.mark.parametrize("signature", ["nbytes, extra=None, more=None", "*everything", "nbytes, /, **settings"])
def test_a_callback_that_can_take_one_argument_gets_one(signature: str) -> None:
    gets: dict[str, Any] = {}
    exec(f"def callback({signature}):\n    seen.append(dict(locals()))", {"seen": (seen := [])}, gets)
    with pytest.raises(MemoryError):
        failing(gets["callback"]).allocate(TOO_MUCH)
    assert len(seen) == 1
    assert [value for value in seen[0].values() if value] in ([TOO_MUCH], [(TOO_MUCH,)])


def test_a_callback_without_a_signature_gets_one_argument() -> None:
    with pytest.raises(ValueError, match="no signature"):
        inspect.signature(max)
    with pytest.raises(RuntimeError, match="'int' object is not iterable") as caught:
        failing(max).allocate(TOO_MUCH)  # with three it would answer
    assert type(caught.value.__cause__) is TypeError


@pytest.mark.parametrize("callback", [None, 5, "text", lambda: False, lambda nbytes, stream: False])
def test_what_cannot_be_called_so_is_refused(callback: Any) -> None:
    with pytest.raises(TypeError, match="Argument `callback`"):
        failing(callback)


def test_the_callback_is_called_a_bounded_number_of_times() -> None:
    callback = mock.Mock(return_value=True)
    with pytest.raises(MemoryError):
        failing(callback).allocate(TOO_MUCH)
    assert callback.call_count == 64
    callback.reset_mock()
    with pytest.raises(MemoryError):
        failing(callback, max_tries=3).allocate(TOO_MUCH)
    assert callback.call_count == 3
    with pytest.raises(OverflowError):
        failing(callback, max_tries=-1)


def test_a_callback_may_free_memory_so_that_the_next_try_succeeds() -> None:
    held: list[cenote.DeviceBuffer] = []

    def spill(nbytes: int) -> bool:
        if not held:
            return False
        held.pop()
        return True

    limited = mr.LimitingResourceAdaptor(pool(), "3MiB")
    resource = mr.FailureCallbackResourceAdaptor(limited, spill)
    held.extend(cenote.DeviceBuffer(size=MIB, mr=resource) for _ in range(3))
    buffer = cenote.DeviceBuffer(size=2 * MIB, mr=resource)
    assert len(held) == 1
    assert buffer.size == 2 * MIB
    held.clear()


def test_the_callback_is_not_called_for_another_failure_of_the_driver() -> None:
    callback = mock.Mock(return_value=True)
    resource = mr.FailureCallbackResourceAdaptor(mr.CudaMemoryResource(), callback)
    with sim.failing("cuMemAlloc", error=999), pytest.raises(cenote.CudaError):
        resource.allocate(100)
    callback.assert_not_called()


@pytest.mark.parametrize("raised", [MyError("my text"), KeyError("my text")])
def test_an_exception_of_the_callback_is_the_cause_of_a_runtime_error(raised: Exception) -> None:
    def callback(nbytes: int) -> bool:
        raise raised

    with pytest.raises(RuntimeError, match="my text") as caught:
        failing(callback).allocate(TOO_MUCH)
    assert type(caught.value) is RuntimeError
    assert caught.value.__cause__ is raised
    assert traceback.extract_tb(raised.__traceback__)[-1].name == "callback"


def test_a_memory_error_of_the_callback_reaches_the_caller_itself() -> None:
    raised = MemoryError("my text")

    def callback(nbytes: int) -> bool:
        raise raised

    with pytest.raises(MemoryError, match="my text") as caught:
        failing(callback).allocate(TOO_MUCH)
    assert caught.value is raised


def test_an_exception_passes_every_adaptor_and_leaves_nothing_behind() -> None:
    def callback(nbytes: int) -> bool:
        raise MyError

    counted = mr.StatisticsResourceAdaptor(mr.TrackingResourceAdaptor(failing(callback), capture_stacks=True))
    limited = mr.LimitingResourceAdaptor(counted, 2 * TOO_MUCH)
    outer = mock.Mock(return_value=False)
    with pytest.raises(RuntimeError, match="MyError"):
        mr.FailureCallbackResourceAdaptor(limited, outer).allocate(TOO_MUCH)
    outer.assert_not_called()
    assert limited.get_allocated_bytes() == 0
    assert counted.allocation_counts == Statistics(0, 0, 0, 0, 0, 0)
    assert counted.upstream_mr.get_allocated_bytes() == 0  # type: ignore[attr-defined]


def test_memory_that_a_callback_below_says_ran_out_calls_the_callback_above() -> None:
    def callback(nbytes: int) -> bool:
        raise MemoryError("my text")

    outer = mock.Mock(return_value=False)
    with pytest.raises(MemoryError, match="my text"):
        mr.FailureCallbackResourceAdaptor(failing(callback), outer).allocate(TOO_MUCH)
    outer.assert_called_once_with(TOO_MUCH)


def test_callbacks_of_many_threads_run_at_the_same_time() -> None:
    together = threading.Barrier(4, timeout=60)

    def callback(nbytes: int) -> bool:
        together.wait()  # broken if the adaptor let one thread at a time in
        return False

    resource = failing(callback)
    results: list[str] = []

    def work() -> None:
        try:
            resource.allocate(TOO_MUCH)
        except MemoryError as error:
            results.append(type(error).__name__)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["OutOfMemoryError"] * 4


def test_a_callback_that_refers_to_its_own_resource_is_collected_with_it() -> None:
    def make() -> tuple[weakref.ref[Any], weakref.ref[Any]]:
        resource: mr.FailureCallbackResourceAdaptor

        def callback(nbytes: int) -> bool:
            return resource.get_upstream() is None

        resource = failing(callback)
        with pytest.raises(MemoryError):
            resource.allocate(TOO_MUCH)
        return weakref.ref(resource), weakref.ref(callback)

    resource, callback = make()
    assert resource() is not None
    gc.collect()
    assert resource() is None
    assert callback() is None


def test_a_callback_that_only_the_registry_can_still_reach_is_not_taken_apart() -> None:
    asked: list[int] = []

    def make() -> None:
        resource: mr.FailureCallbackResourceAdaptor

        def callback(nbytes: int) -> bool:
            asked.append(nbytes)
            return resource is None

        resource = failing(callback)
        mr.set_current_device_resource(resource)

    make()
    gc.collect()
    gc.collect()
    with pytest.raises(MemoryError):
        mr.get_current_device_resource().allocate(TOO_MUCH)
    assert asked == [TOO_MUCH]


def test_a_subclass_is_collected_as_well() -> None:
    class Own(mr.FailureCallbackResourceAdaptor):
        def __init__(self) -> None:
            super().__init__(pool(), self.help)

        def help(self, nbytes: int) -> bool:
            return False

    resource = weakref.ref(Own())
    gc.collect()
    assert resource() is None


def test_callables_are_given_back_with_their_resource() -> None:
    def callback(nbytes: int) -> bool:
        raise MyError

    before = sys.getrefcount(callback)
    for _ in range(10):
        resource = failing(callback)
        with pytest.raises(RuntimeError):
            resource.allocate(TOO_MUCH)
        del resource
    gc.collect()
    assert sys.getrefcount(callback) == before


def test_a_process_ends_with_callbacks_in_use(run_fresh: Callable[..., Any]) -> None:
    finished = run_fresh("""
        import threading
        from cenote import mr

        class Owner:
            def help(self, nbytes):
                return False
        owner = Owner()
        owner.mr = mr.FailureCallbackResourceAdaptor(mr.CudaMemoryResource(), owner.help)
        mr.set_current_device_resource(mr.TrackingResourceAdaptor(owner.mr, capture_stacks=True))
        pointer = mr.get_current_device_resource().allocate(100)
        waiting = threading.Event()
        def work():
            mr.get_current_device_resource().allocate(100)
            waiting.wait()
        threading.Thread(target=work, daemon=True).start()
        try:
            mr.get_current_device_resource().allocate(1 << 40)
        except MemoryError as error:
            kept = error
        print("ended")
    """)
    assert finished.stdout == "ended\n"
    assert finished.stderr == ""


def test_what_a_pool_calls_while_it_grows_may_allocate_from_it(run_fresh: Callable[..., Any]) -> None:
    run_fresh("""
        from cenote import mr
        cuda, calls, MIB = mr.CudaMemoryResource(), [], 1 << 20
        def allocate(nbytes, stream):
            calls.append(nbytes)
            if len(calls) == 2:
                pool.allocate(4 * MIB)
            return cuda.allocate(nbytes, stream)
        pool = mr.PoolMemoryResource(mr.CallbackMemoryResource(allocate, lambda *_: None), MIB)
        pool.allocate(8 * MIB)
        assert len(calls) == 3
        assert pool.in_use() == 12 * MIB
        pool.check()
    """)


@pytest.mark.parametrize("attempt", range(3))
def test_a_process_ends_while_daemon_threads_are_in_callbacks(run_fresh: Callable[..., Any], attempt: int) -> None:
    finished = run_fresh(
        """
        import threading
        import cenote
        from cenote import mr

        cuda = mr.CudaMemoryResource()
        running = threading.Barrier(5)
        def allocate(nbytes, stream):
            return cuda.allocate(nbytes, stream)
        def deallocate(pointer, nbytes, stream):
            cuda.deallocate(pointer, nbytes, stream)
        mine = mr.CallbackMemoryResource(allocate, deallocate)
        full = mr.FailureCallbackResourceAdaptor(mr.LimitingResourceAdaptor(mine, 0), lambda nbytes: False)
        tracked = mr.TrackingResourceAdaptor(mine, capture_stacks=True)
        def work():
            running.wait()
            while True:
                cenote.DeviceBuffer(size=100, mr=tracked)
                try:
                    full.allocate(100)
                except MemoryError:
                    pass
        for _ in range(4):
            threading.Thread(target=work, daemon=True).start()
        left = cenote.DeviceBuffer(size=100, mr=mine)
        running.wait()
        print("ended")
    """
    )
    assert finished.stdout == "ended\n"
    assert finished.stderr == ""


# Prefetch, aligned


def test_managed_memory_is_prefetched_and_other_memory_works() -> None:
    sim.reset_calls()
    managed = mr.PrefetchResourceAdaptor(mr.ManagedMemoryResource())
    managed.deallocate(managed.allocate(MIB), MIB)
    assert sim.calls()["cuMemPrefetchAsync"] == 1
    plain = mr.PrefetchResourceAdaptor(mr.CudaMemoryResource())
    plain.deallocate(plain.allocate(MIB), MIB)


@pytest.mark.parametrize(
    ("alignment", "error"), [(0, ValueError), (3, ValueError), (-1, OverflowError), (None, TypeError), ("1", TypeError)]
)
def test_an_alignment_that_is_no_power_of_two_is_refused(alignment: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        mr.AlignedResourceAdaptor(mr.CudaMemoryResource(), alignment)


def test_alignment_and_threshold_are_in_the_specification() -> None:
    adaptor = mr.AlignedResourceAdaptor(mr.CudaMemoryResource(), 4096, threshold=MIB)
    assert adaptor.specification == "aligned:alignment=4KiB,threshold=1MiB | cuda"


# Guard


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


# Statistics


def test_scopes_of_statistics_count_what_their_own_thread_does() -> None:
    counted = mr.StatisticsResourceAdaptor(pool())
    counted.push_counters()
    mine = counted.allocate(100)
    seen: list[Statistics] = []

    def work() -> None:
        seen.append(counted.allocation_counts)
        seen.append(counted.push_counters())
        counted.deallocate(counted.allocate(1000), 1000)
        seen.append(counted.pop_counters())
        with pytest.raises(IndexError, match="cannot pop the last counter pair"):
            counted.pop_counters()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    everything = Statistics(100, 1, 100, 1, 100, 1)
    assert seen == [everything, everything, Statistics(0, 0, 1000, 1, 1000, 1)]
    assert counted.pop_counters() == Statistics(100, 1, 100, 1, 100, 1)
    assert counted.allocation_counts == Statistics(100, 1, 1100, 2, 1100, 2)
    counted.deallocate(mine, 100)


# Logging


def test_the_log_file_of_programs_for_rmm_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMM_LOG_FILE", str(tmp_path / "rmm.csv"))
    assert mr.LoggingResourceAdaptor(pool()).get_file_name() == str(tmp_path / "rmm.dev0.csv")
    monkeypatch.setenv("CENOTE_LOG_FILE", str(tmp_path / "own.csv"))
    assert mr.LoggingResourceAdaptor(pool()).get_file_name() == str(tmp_path / "own.dev0.csv")


@pytest.mark.parametrize("during", ["allocate", "deallocate"])
def test_a_collection_within_a_function_under_the_thread_safe_adaptor_frees_its_blocks(
    run_fresh: Callable[..., Any], during: str
) -> None:
    done = run_fresh(f"""
        import faulthandler, gc
        import cenote
        from cenote import mr

        faulthandler.dump_traceback_later(60, exit=True)
        gc.disable()
        base = mr.PoolMemoryResource(mr.CudaMemoryResource(), "1MiB")
        during = {during!r}

        def allocate(size, stream):
            during == "allocate" and gc.collect()
            return base.allocate(size, stream)

        def deallocate(ptr, size, stream):
            base.deallocate(ptr, size, stream)
            during == "deallocate" and gc.collect()

        own = mr.ThreadSafeResourceAdaptor(mr.CallbackMemoryResource(allocate, deallocate))
        buffer = cenote.DeviceBuffer(size=100, mr=own)
        cycle = [cenote.DeviceBuffer(size=100, mr=own)]
        cycle.append(cycle)
        del cycle
        if during == "deallocate":
            del buffer
            assert base.in_use() == 0
        else:
            another = cenote.DeviceBuffer(size=100, mr=own)
            assert base.in_use() == 512
        print("done")
    """)
    assert done.stdout == "done\n", done.stderr
