"""Graphs of a pool use the same memory, which goes back with them."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import pytest

import cenote
from cenote import GraphPool, Stream, driver, mr, sim

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
        with graph_pool:
            graphs.append(capture(stream, use_temporary(pool, stream)))
    assert held_after_trim(pool) == TEMPORARY
    for graph in graphs:
        assert held_after_trim(pool) == TEMPORARY
        assert SIMULATED_DRIVER.cuGraphDestroy(graph) == 0
    assert held_after_trim(pool) == TEMPORARY, "for later graphs"
    graph_pool.release()
    assert held_after_trim(pool) == 0


def test_graphs_of_two_pools_have_their_own(pool: mr.PoolMemoryResource, stream: Stream) -> None:
    pools = [GraphPool(0), GraphPool(0)]
    graphs = []
    for graph_pool in pools:
        with graph_pool:
            graphs.append(capture(stream, use_temporary(pool, stream)))
    assert held_after_trim(pool) == 2 * TEMPORARY
    for graph in graphs:
        assert SIMULATED_DRIVER.cuGraphDestroy(graph) == 0
    del graph_pool, pools
    gc.collect()
    assert held_after_trim(pool) == 0


def test_an_error_inside_ends_the_capture_that_it_announced(pool: mr.PoolMemoryResource, stream: Stream) -> None:
    graph_pool = GraphPool()
    with pytest.raises(ZeroDivisionError), graph_pool:
        assert SIMULATED_DRIVER.cuGraphDestroy(capture(stream, use_temporary(pool, stream))) == 0
        raise ZeroDivisionError
    graph_pool.release()
    assert held_after_trim(pool) == 0


def test_what_makes_no_sense_is_refused() -> None:
    graph_pool = GraphPool()
    graph_pool.release()  # nothing was captured
    with graph_pool:
        with pytest.raises(RuntimeError, match="one capture at a time"), graph_pool:
            pass
        with pytest.raises(RuntimeError, match="going on"):
            graph_pool.release()
    graph_pool.release()
    graph_pool.release()
    with pytest.raises(IndexError, match="there is no device 99"), GraphPool(99):
        pass
    with pytest.raises(TypeError, match="device"):
        GraphPool("0")  # type: ignore[arg-type]
