"""Graphs of a pool use the same memory, which goes back with them."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import cenote
from cenote import GraphPool, Stream, driver, mr, recorder, sim
from cenote.cli import situation

SIMULATED_DRIVER = ctypes.CDLL(str(Path(driver.__file__).parent / "lib" / "libcenote_sim.so"))
TEMPORARY = 4 << 20


@pytest.fixture
def pool() -> mr.PoolMemoryResource:
    return mr.PoolMemoryResource(mr.VirtualMemoryResource())


@pytest.fixture
def stream() -> Stream:
    return Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING)


def capture(stream: Stream, work: Callable[[], None]) -> ctypes.c_void_p:
    handle, graph = ctypes.c_void_p(stream.handle), ctypes.c_void_p()
    assert SIMULATED_DRIVER.cuStreamBeginCapture_v2(handle, 0) == 0
    work()
    assert SIMULATED_DRIVER.cuStreamEndCapture(handle, ctypes.byref(graph)) == 0
    return graph


def use_temporary(pool: mr.PoolMemoryResource, stream: Stream) -> Callable[[], None]:
    return lambda: pool.deallocate(pool.allocate(TEMPORARY, stream), TEMPORARY, stream)


def held_after_trim(pool: mr.PoolMemoryResource) -> int:
    sim.drain()
    pool.trim()
    pool.check()
    held = pool.state().held
    assert held is not None
    return held


def test_graphs_cost_one_of_them_until_all_are_gone(pool: mr.PoolMemoryResource, stream: Stream) -> None:
    graph_pool = GraphPool()
    graphs = []
    for _ in range(8):
        with graph_pool.capture(stream):
            graphs.append(capture(stream, use_temporary(pool, stream)))
    for graph in graphs:
        assert held_after_trim(pool) == TEMPORARY
        assert SIMULATED_DRIVER.cuGraphDestroy(graph) == 0
    assert held_after_trim(pool) == 0


@pytest.mark.parametrize("is_gone", [False, True], ids=["there", "gone"])
def test_graphs_of_two_pools_have_their_own(pool: mr.PoolMemoryResource, stream: Stream, is_gone: bool) -> None:
    graphs, pools = [], []
    for _ in range(2):
        pools.append(GraphPool(0))
        with pools[-1].capture(stream):
            graphs.append(capture(stream, use_temporary(pool, stream)))
        if is_gone:
            pools.clear()
    assert held_after_trim(pool) == 2 * TEMPORARY
    for graph in graphs:
        assert SIMULATED_DRIVER.cuGraphDestroy(graph) == 0
    assert held_after_trim(pool) == 0


def test_an_error_inside_ends_the_capture_that_it_announced(pool: mr.PoolMemoryResource, stream: Stream) -> None:
    graph_pool = GraphPool()
    with pytest.raises(ZeroDivisionError), graph_pool.capture(stream):
        raise ZeroDivisionError
    graphs = [capture(stream, use_temporary(pool, stream)) for _ in range(2)]
    assert held_after_trim(pool) == 2 * TEMPORARY, "in no pool"
    for graph in graphs:
        assert SIMULATED_DRIVER.cuGraphDestroy(graph) == 0


def test_a_forked_child_ends_as_it_would_without_one(stream: Stream) -> None:
    program = """
import os, sys, cenote
pool, stream = cenote.GraphPool(0), cenote.Stream()
with pool.capture(stream):
    pass
child = os.fork()
if child == 0:
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("7\n", "")


def test_what_makes_no_sense_is_refused(stream: Stream) -> None:
    with pytest.raises(IndexError, match="there is no device 99"), GraphPool(99).capture(stream):
        pass
    with pytest.raises(TypeError, match="device"):
        GraphPool("0")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="stream"), GraphPool().capture("0"):  # type: ignore[arg-type]
        pass


def test_an_explanation_counts_the_memory_of_a_pool_once(pool: mr.PoolMemoryResource, stream: Stream) -> None:
    def graph_steps() -> list[tuple[int, int, int]]:
        events = recorder.snapshot().events
        return [
            (int(e["stream"]), int(e["address"]), int(e["bytes"]))
            for e in events[events["event"] == recorder.Event.HOLD]
        ]

    before = len(graph_steps())
    graph_pool = GraphPool()
    graphs = []
    for _ in range(3):
        with graph_pool.capture(stream):
            graphs.append(capture(stream, use_temporary(pool, stream)))
    (first, _, second), (also_second, _, third) = graph_steps()[before:]
    assert second == also_second
    for graph in graphs:
        assert SIMULATED_DRIVER.cuGraphDestroy(graph) == 0
    held_after_trim(pool)
    assert graph_steps()[before + 2 :] == [(third, 0, 0)]
    assert len({first, second, third}) == 3


@pytest.mark.parametrize(
    ("steps", "names", "gone"),
    [
        ([(1, 0), (2, 0)], {1: 1, 2: 2}, {1, 2}),
        ([(1, 2), (2, 3), (3, 0)], {1: 1, 2: 1, 3: 1}, {1}),
        ([(1, 2), (2, 3)], {1: 1, 2: 1, 3: 1}, set()),
        ([(1, 2), (1, 3), (3, 0)], {1: 1, 2: 1, 3: 1}, set()),  # a branch goes on in 2, which is there
        ([(1, 2), (1, 3), (3, 0), (2, 0), (4, 0)], {1: 1, 2: 1, 3: 1, 4: 4}, {1, 4}),
        ([(1, 2), (2, 1)], {1: 1, 2: 1}, {1}),  # of a damaged file
    ],
)
def test_captures_that_share_memory_are_one(
    steps: list[tuple[int, int]], names: dict[int, int], gone: set[int]
) -> None:
    assert situation._memory_of_graphs(steps) == (names, gone)
