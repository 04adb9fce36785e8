"""Callbacks: functions of the program that are called when memory ran out, or to hand it out."""

from __future__ import annotations

import gc
import inspect
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

import cenote
from cenote import Statistics, mr, sim
from growing_pool import pool

MIB = 1024**2
TOO_MUCH = 2**40


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


# Functions that hand out memory


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
