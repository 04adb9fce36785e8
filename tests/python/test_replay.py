"""Replay of traces on the resources of the simulated device."""

from __future__ import annotations

import dataclasses
import gc
import os
import signal
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

import cenote
from cenote import trace
from cenote.logs.replay import Replay, ReplayOutOfMemoryError, replay, streams_of
from cenote.logs.trace import DTYPE, Action

MIB = 1024**2


def events(*rows: tuple[Action, int, int, int]) -> trace.Trace:
    """A trace from (action, pointer, bytes, stream), one microsecond apart."""
    return np.array([(1, at, *row) for at, row in enumerate(rows)], dtype=DTYPE)


def example() -> trace.Trace:
    """The trace that comes with cenote at a sixty-fourth of its size, so that it fits on a small card."""
    recorded = trace.read(trace.example())
    recorded["bytes"] = np.maximum(1, recorded["bytes"] // 64)
    return recorded


def counted(specification: str = "pool:initial=0 | cuda") -> cenote.mr.StatisticsResourceAdaptor:
    return cenote.mr.StatisticsResourceAdaptor(cenote.mr.from_spec(specification))


def test_replay_makes_the_allocations_of_the_trace() -> None:
    recorded = example()
    mr = counted()
    result = replay(recorded, mr)
    counts = mr.allocation_counts
    assert (result.allocations, result.frees, result.failures, result.unknown_frees) == (13_098, 13_096, 0, 0)
    assert counts.total_count == result.allocations
    assert counts.total_bytes == recorded["bytes"][recorded["action"] == Action.ALLOCATE].sum()
    assert counts.peak_bytes == result.peak_bytes == trace.bytes_in_use(recorded).max()
    mr.check()


def test_what_the_trace_leaks_is_freed_and_counted() -> None:
    mr = counted()
    result = replay(events((Action.ALLOCATE, 1, MIB, 0), (Action.ALLOCATE, 2, 512, 0), (Action.FREE, 1, MIB, 0)), mr)
    assert (result.leaked, result.leaked_bytes) == (1, 512)
    assert mr.allocation_counts.current_bytes == 0


def test_recorded_failures_unknown_frees_and_empty_allocations_are_skipped() -> None:
    mr = counted()
    result = replay(
        events(
            (Action.FAILURE, 0, 2**60, 0),
            (Action.FREE, 5, 256, 0),
            (Action.ALLOCATE, 0, 0, 0),
            (Action.ALLOCATE, 0, 0, 0),
            (Action.FREE, 0, 0, 0),
        ),
        mr,
    )
    assert (result.allocations, result.frees, result.failures, result.unknown_frees) == (0, 0, 1, 1)
    assert result.largest_failure == 2**60
    assert mr.allocation_counts.total_count == 0


def test_free_of_another_size_frees_what_was_allocated_and_is_counted() -> None:
    mr = counted()
    result = replay(events((Action.ALLOCATE, 1, 1000, 0), (Action.FREE, 1, 5000, 0)), mr)
    assert (result.frees, result.wrong_sizes, mr.allocation_counts.current_bytes) == (1, 1, 0)


def threaded(*rows: tuple[int, Action, int, int]) -> trace.Trace:
    """A trace from (thread, action, pointer, bytes) on one stream, one microsecond apart."""
    return np.array([(thread, at, *row, 0) for at, (thread, *row) in enumerate(rows)], dtype=DTYPE)


def on_random_threads(recorded: trace.Trace, threads: int, seed: int = 1) -> trace.Trace:
    """The same events, each on one of several threads."""
    spread = recorded.copy()
    spread["thread"] = np.random.default_rng(seed).integers(1, threads + 1, len(recorded))
    return spread


class ThreadRecorder:
    """A resource that writes down which thread did what, and how many the kernel has."""

    def __init__(self, most_bytes: int = 2**60) -> None:
        self.calls: list[tuple[str, int]] = []
        self.alive: list[int] = []
        self._most_bytes = most_bytes

    def allocate(self, nbytes: int, stream: object) -> int:
        if nbytes > self._most_bytes:
            raise MemoryError("too much")
        self._write_down(nbytes)
        return 4096

    def deallocate(self, ptr: int, nbytes: int, stream: object) -> None:
        self._write_down(-nbytes)

    def _write_down(self, nbytes: int) -> None:
        self.calls.append((threading.current_thread().name, nbytes))
        self.alive.append(threads_of_the_process())


def threads_of_the_process() -> int:
    """With those that have ended for Python and still run the destructors of what was their own."""
    return len(os.listdir("/proc/self/task"))


def test_each_recorded_thread_has_a_thread_of_its_own_and_events_keep_their_order() -> None:
    a, f = Action.ALLOCATE, Action.FREE
    recorder = ThreadRecorder()
    recorded = threaded((7, a, 1, 10), (7, a, 2, 20), (9, f, 1, 10), (7, a, 3, 30), (8, f, 2, 20), (9, f, 3, 30))
    replay(recorded, recorder, {0: "any"})
    threads, sizes = zip(*recorder.calls, strict=True)
    assert sizes == (10, 20, -10, 30, -20, -30)
    assert threads == tuple(f"recorded thread {number}" for number in (7, 7, 9, 7, 8, 9))


def test_recorded_thread_lives_from_its_first_event_to_its_last() -> None:
    a, f = Action.ALLOCATE, Action.FREE
    recorder = ThreadRecorder()
    before = threads_of_the_process()
    replay(threaded((1, a, 1, 10), (2, a, 2, 20), (2, f, 1, 10), (3, f, 2, 20), (1, a, 4, 1)), recorder, {0: "any"})
    assert [alive - before for alive in recorder.alive] == [1, 2, 2, 2, 1, 0]  # the last: what was left is freed
    assert threads_of_the_process() == before


def test_trace_of_one_thread_is_replayed_by_the_callers() -> None:
    recorder = ThreadRecorder()
    replay(threaded((7, Action.ALLOCATE, 1, 10), (7, Action.FREE, 1, 10)), recorder, {0: "any"})
    assert {thread for thread, _ in recorder.calls} == {threading.current_thread().name}


def test_threads_wait_where_a_replay_is_paused_and_end_with_it() -> None:
    recorder = ThreadRecorder()
    before = threads_of_the_process()
    recorded = threaded(*((thread, Action.ALLOCATE, at, 10) for at, thread in enumerate((1, 2, 1, 2, 1, 2), 1)))
    run = Replay(recorder, {0: "any"})
    run.play(recorded, stop=3)
    run.play(recorded, start=3)
    assert [thread for thread, _ in recorder.calls] == ["recorded thread 1", "recorded thread 2"] * 3
    run.finish()
    assert threads_of_the_process() == before


def test_replay_on_threads_does_what_one_thread_does() -> None:
    recorded = example()[:4000]
    alone, several = counted(), counted()
    first, second = replay(recorded, alone), replay(on_random_threads(recorded, 5), several)
    assert dataclasses.replace(first, seconds=0) == dataclasses.replace(second, seconds=0)
    assert alone.allocation_counts == several.allocation_counts
    several.check()


def test_progress_on_threads_comes_from_the_callers_and_at_each_step() -> None:
    recorded = on_random_threads(example()[:1000], 3)
    here = threading.current_thread()
    seen: list[tuple[bool, int]] = []
    replay(
        recorded,
        counted(),
        progress=lambda done: seen.append((threading.current_thread() is here, done)),
        progress_every=100,
    )
    assert seen == [(True, done) for done in (*range(100, 1001, 100), 1000)]


def test_out_of_memory_on_a_thread_is_told_as_elsewhere_and_ends_the_threads() -> None:
    recorder = ThreadRecorder(most_bytes=100)
    before = threads_of_the_process()
    recorded = threaded((1, Action.ALLOCATE, 1, 10), (2, Action.ALLOCATE, 2, 20), (1, Action.ALLOCATE, 3, 101))
    with pytest.raises(ReplayOutOfMemoryError, match=r"event 3 of 3 .*101 bytes while 30"):
        replay(recorded, recorder, {0: "any"})
    assert sum(nbytes for _, nbytes in recorder.calls) == 0
    assert threads_of_the_process() == before


def test_what_ran_out_of_memory_on_a_thread_is_not_kept() -> None:
    """Until Python collects garbage: its memory would be missing from the next replay."""
    recorder = ThreadRecorder(most_bytes=15)
    gone = weakref.ref(recorder)
    recorded = threaded((1, Action.ALLOCATE, 1, 10), (2, Action.ALLOCATE, 2, 20))
    gc.disable()
    try:
        try:
            replay(recorded, recorder, {0: "any"})
        except ReplayOutOfMemoryError:
            del recorder
        assert gone() is None
    finally:
        gc.enable()


def test_interruption_waits_for_the_event_and_ends_the_threads() -> None:
    class Interrupting(ThreadRecorder):
        """Sends the process what Ctrl-C sends, in the midst of an allocation by another thread."""

        def allocate(self, nbytes: int, stream: object) -> int:
            if nbytes == 20:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.2)
            return super().allocate(nbytes, stream)

    recorder = Interrupting()
    before = threads_of_the_process()
    recorded = threaded((1, Action.ALLOCATE, 1, 10), (2, Action.ALLOCATE, 2, 20), (1, Action.ALLOCATE, 3, 30))
    with pytest.raises(KeyboardInterrupt):
        replay(recorded, recorder, {0: "any"})
    assert [nbytes for _, nbytes in recorder.calls] == [10, 20, -10, -20]
    assert threads_of_the_process() == before


def test_default_streams_are_those_of_the_trace() -> None:
    streams = streams_of(events(*((Action.ALLOCATE, at, 1, at) for at in range(4))))
    assert streams[0] is cenote.DEFAULT_STREAM
    assert streams[1] is cenote.LEGACY_DEFAULT_STREAM
    assert streams[2] is cenote.PER_THREAD_DEFAULT_STREAM
    assert streams[3] not in (streams[0], streams[1], streams[2])


def test_each_recorded_stream_has_a_stream_of_its_own() -> None:
    streams = streams_of(events(*((Action.ALLOCATE, at, 1, stream) for at, stream in enumerate((0, 7, 7, 2**63, 0)))))
    assert set(streams) == {0, 7, 2**63}
    assert streams[0] is cenote.DEFAULT_STREAM
    assert len({stream.handle for stream in streams.values()}) == 3


def test_streams_are_made_on_the_device_that_they_are_for() -> None:
    streams = streams_of(events((Action.ALLOCATE, 1, 256, 0), (Action.ALLOCATE, 2, 256, 7)), device=1)
    assert streams[0] is cenote.DEFAULT_STREAM and streams[7].device == 1


def test_given_streams_are_used() -> None:
    class Recorder:
        def __init__(self) -> None:
            self.calls: list[tuple[str, int, object]] = []

        def allocate(self, nbytes: int, stream: object) -> int:
            self.calls.append(("allocate", nbytes, stream))
            return 4096

        def deallocate(self, ptr: int, nbytes: int, stream: object) -> None:
            assert ptr == 4096
            self.calls.append(("free", nbytes, stream))

    recorder = Recorder()
    replay(events((Action.ALLOCATE, 9, 64, 1), (Action.FREE, 9, 64, 2)), recorder, {1: "one", 2: "two"})
    assert recorder.calls == [("allocate", 64, "one"), ("free", 64, "two")]


def test_out_of_memory_says_how_far_it_came_and_frees_everything() -> None:
    mr = counted("pool:initial=0,max=4MiB | cuda")
    too_much = events(*((Action.ALLOCATE, at, 2 * MIB, 0) for at in range(1, 6)))
    with pytest.raises(ReplayOutOfMemoryError, match=r"event 3 of 5 .*2,097,152 bytes while 4,194,304") as caught:
        replay(too_much, mr)
    assert (caught.value.event, caught.value.requested, caught.value.in_use) == (2, 2 * MIB, 4 * MIB)
    assert isinstance(caught.value.__cause__, cenote.OutOfMemoryError)
    assert mr.allocation_counts.current_bytes == 0


def test_address_that_is_allocated_twice_is_a_wrong_trace() -> None:
    mr = counted()
    with pytest.raises(ValueError, match=r"event 2 of 2: 0x9 is allocated again"):
        replay(events((Action.ALLOCATE, 9, 256, 0), (Action.ALLOCATE, 9, 256, 0)), mr)
    assert mr.allocation_counts.current_bytes == 0


def test_progress_rises_to_the_number_of_events() -> None:
    recorded = example()
    seen: list[int] = []
    replay(recorded, counted(), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == len(recorded)


def test_paused_replay_holds_what_the_trace_holds() -> None:
    recorded = example()
    in_use = trace.bytes_in_use(recorded)
    peak = int(in_use.argmax()) + 1
    mr = counted()
    run = Replay(mr, streams_of(recorded))
    run.play(recorded, stop=peak)
    assert mr.allocation_counts.current_bytes == in_use.max()
    run.play(recorded, start=peak)
    assert mr.allocation_counts.current_bytes == in_use[-1]
    assert run.finish().peak_bytes == in_use.max()
    assert mr.allocation_counts.current_bytes == 0


def test_log_of_a_replay_replays_the_same(tmp_path: Path) -> None:
    recorded = example()[:2000]
    mr = cenote.mr.LoggingResourceAdaptor(counted(), tmp_path / "log.csv")
    first = replay(recorded, mr)
    mr.flush()
    logged = trace.read(mr.get_file_name())
    assert np.array_equal(trace.bytes_in_use(logged)[: len(recorded)], trace.bytes_in_use(recorded))
    second = replay(logged, counted())
    assert (second.allocations, second.peak_bytes, second.leaked) == (first.allocations, first.peak_bytes, 0)
