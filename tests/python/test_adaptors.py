"""Adaptors: what all of them promise, and what some do: limiting, prefetch, aligned, statistics, logging."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cenote
from cenote import Statistics, mr, sim
from growing_pool import pool

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
