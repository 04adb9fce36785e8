"""`cenote.use`: a resource for a part of a program, on the calling thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest

import cenote
from cenote import mr


def in_use(resource: mr.DeviceMemoryResource) -> int:
    used = resource.state().in_use
    assert used is not None
    return used


def test_what_is_allocated_inside_comes_from_the_resource() -> None:
    outer = mr.get_current_device_resource()
    with cenote.use("pool:initial=0") as pool:
        assert mr.get_current_device_resource() is pool
        inside = cenote.DeviceBuffer(size=1000)
        assert inside.mr is pool
    assert mr.get_current_device_resource() is outer
    assert in_use(pool) == 1024
    del inside
    assert in_use(pool) == 0


def test_clients_such_as_frameworks_follow_it() -> None:
    client = cenote.registry.Client("test_scopes")
    with cenote.use("pool:initial=0") as pool:
        block = client.allocate(1000)
    outside = client.allocate(1000)
    assert in_use(pool) == 1024
    client.deallocate(block)
    client.deallocate(outside)
    assert in_use(pool) == 0


def test_it_nests_and_may_be_entered_again() -> None:
    first, second = cenote.use("pool:initial=0"), cenote.use("cuda")
    with first, second, first:
        assert mr.get_current_device_resource() is first.resource
    with second:
        assert mr.get_current_device_resource() is second.resource


def test_other_threads_stay_as_they_are() -> None:
    outer = mr.get_current_device_resource()
    with cenote.use("pool:initial=0"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(mr.get_current_device_resource).result() is outer


def test_threads_have_scopes_of_one_object_at_a_time() -> None:
    scope, together = cenote.use("pool:initial=0"), threading.Barrier(4)

    def body() -> bool:
        with scope as pool:
            together.wait()
            same = mr.get_current_device_resource() is pool
            together.wait()
        return same and mr.get_current_device_resource() is not pool

    with ThreadPoolExecutor(4) as threads:
        assert all(each.result() for each in [threads.submit(body) for _ in range(4)])


def test_it_holds_for_its_device_alone(on_device: Callable[[int], AbstractContextManager[None]]) -> None:
    before = mr.get_per_device_resource(0)
    with cenote.use("pool:initial=0", device=1) as pool:
        assert mr.get_per_device_resource(0) is before
        with on_device(1):
            assert mr.get_current_device_resource() is pool


def test_an_exception_ends_it() -> None:
    outer = mr.get_current_device_resource()
    with pytest.raises(KeyError), cenote.use("pool:initial=0"):
        raise KeyError
    assert mr.get_current_device_resource() is outer


def test_saving_and_restoring_the_current_resource_inside_stays_inside() -> None:
    outer = mr.get_current_device_resource()
    with cenote.use("pool:initial=0") as pool:
        saved = mr.set_current_device_resource(mr.CudaMemoryResource())
        assert saved is pool
        mr.set_current_device_resource(saved)
    assert mr.get_current_device_resource() is outer


def test_an_end_out_of_turn_is_refused_and_ends_nothing() -> None:
    outer = mr.get_current_device_resource()
    first, second = cenote.use("pool:initial=0"), cenote.use("cuda")
    first.__enter__()
    second.__enter__()
    with pytest.raises(RuntimeError, match="ends on the thread where it began"):
        first.__exit__(None, None, None)
    with ThreadPoolExecutor(1) as thread, pytest.raises(RuntimeError, match="ends on the thread"):
        thread.submit(second.__exit__, None, None, None).result()
    assert mr.get_current_device_resource() is second.resource
    second.__exit__(None, None, None)
    first.__exit__(None, None, None)
    assert mr.get_current_device_resource() is outer


def test_what_is_no_resource_is_refused() -> None:
    with pytest.raises(TypeError, match="resource must be a specification or a memory resource"):
        cenote.use(7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'lake' is not a known resource"):
        cenote.use("lake")
    with pytest.raises(ValueError, match="cannot serve device 1"):
        cenote.use(mr.CudaMemoryResource(), device=1)
