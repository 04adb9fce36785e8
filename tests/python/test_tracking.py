"""The tracking adaptor: what is outstanding, which lines allocated it, and bad frees."""

from __future__ import annotations

import logging
import re
import threading

import pytest

import cenote
from cenote import mr
from growing_pool import pool


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
