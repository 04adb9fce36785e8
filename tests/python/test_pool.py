"""The pool: its limits, its counters, and what it costs in driver calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from subprocess import CompletedProcess

import pytest

import cenote
from cenote import driver, mr, sim

MIB = 1024**2
ASKING = {"cuStreamGetId", "cuStreamIsCapturing"}  # which stream it is; they touch nothing


def make_pool(
    initial: int | str | None = 0, maximum: int | str | None = None, upstream: mr.DeviceMemoryResource | None = None
) -> mr.PoolMemoryResource:
    return mr.PoolMemoryResource(upstream or mr.CudaMemoryResource(), initial, maximum)


def test_initial_size_above_the_maximum_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"Initial pool size exceeds the maximum pool size! \(2.00 MiB > 1.00 MiB\)"):
        make_pool("2MiB", "1MiB")


@pytest.mark.parametrize(("sizes", "which"), [((1000, None), "initial"), ((0, 1000), "maximum")])
def test_size_that_is_no_multiple_of_256_is_refused(sizes: tuple[int, int | None], which: str) -> None:
    with pytest.raises(RuntimeError, match=f"{which} pool size must be a multiple of 256 bytes, not 1000"):
        make_pool(*sizes)


def test_refused_pool_takes_nothing_from_the_device() -> None:
    driver.synchronize(0)  # the device's context stays once it is made
    before = sim.live()
    for sizes in (("2MiB", "1MiB"), (1000, None), ("16GiB", None)):
        with pytest.raises((RuntimeError, MemoryError)):
            make_pool(*sizes)
    assert sim.live() == before


def test_pool_that_the_device_has_no_room_for_is_out_of_memory_with_the_figures() -> None:
    with pytest.raises(cenote.OutOfMemoryError) as caught:
        make_pool("16GiB")
    assert (caught.value.requested, caught.value.device_total) == (16 * 1024 * MIB, 8 * 1024 * MIB)


def test_sizes_may_be_texts_or_numbers() -> None:
    assert make_pool("1MiB", "2MiB").specification == make_pool(MIB, 2 * MIB).specification


def test_pool_of_no_given_size_takes_half_of_the_free_memory() -> None:
    free, _ = cenote.driver.memory_info(0)
    pool = make_pool(None)
    assert pool.pool_size() == free // 2 // 256 * 256


def test_pool_of_no_given_size_starts_below_its_maximum() -> None:
    assert make_pool(None, "3MiB").pool_size() == 3 * MIB


def test_initial_memory_is_taken_at_once_and_no_more_while_it_lasts() -> None:
    counted = mr.StatisticsResourceAdaptor(mr.CudaMemoryResource())
    pool = make_pool("4MiB", upstream=counted)
    held = [pool.allocate(MIB) for _ in range(4)]
    assert (counted.allocation_counts.total_count, counted.allocation_counts.total_bytes) == (1, 4 * MIB)
    for address in held:
        pool.deallocate(address, MIB)


def test_maximum_is_never_exceeded_and_is_named_when_it_stops_an_allocation() -> None:
    pool = make_pool(0, "4MiB")
    held = []
    with pytest.raises(cenote.OutOfMemoryError) as caught:
        while True:
            held.append(pool.allocate(MIB))
            assert pool.pool_size() <= 4 * MIB
    assert len(held) == 4
    error = caught.value
    assert (error.requested, error.in_use, error.held, error.limit) == (MIB, 4 * MIB, 4 * MIB, 4 * MIB)
    assert error.largest_free == 0
    pool.deallocate(held.pop(), MIB)
    held.append(pool.allocate(MIB))
    for address in held:
        pool.deallocate(address, MIB)
    pool.check()


def test_freed_neighbours_join_into_one_block() -> None:
    pool = make_pool("4MiB", "4MiB")
    held = [pool.allocate(MIB) for _ in range(4)]
    for address in (held[1], held[3], held[0], held[2]):
        pool.deallocate(address, MIB)
        pool.check()
    assert pool.state().largest_free == 4 * MIB
    pool.deallocate(pool.allocate(4 * MIB), 4 * MIB)


def test_freed_block_is_reused_on_its_own_stream() -> None:
    pool, stream = make_pool("1MiB"), cenote.Stream()
    first = pool.allocate(1000, stream)
    pool.deallocate(first, 1000, stream)
    assert pool.allocate(1000, stream) == first
    pool.deallocate(first, 1000, stream)


def test_warm_pair_on_the_default_stream_makes_no_driver_call() -> None:
    pool = make_pool("1MiB")
    pool.deallocate(pool.allocate(1000), 1000)
    sim.reset_calls()
    for size in (1000, 1, 5000, 300_000):
        pool.deallocate(pool.allocate(size), size)
    assert sim.calls() == {}


def test_warm_pair_on_a_stream_only_asks_which_stream_it_is() -> None:
    pool, stream = make_pool("1MiB"), cenote.Stream()
    pool.deallocate(pool.allocate(1000, stream), 1000, stream)
    sim.reset_calls()
    pool.deallocate(pool.allocate(1000, stream), 1000, stream)
    assert set(sim.calls()) <= ASKING


def test_counters_say_where_each_allocation_came_from() -> None:
    pool = make_pool(0)
    assert set(asdict(pool.counters()).values()) == {0}
    first = pool.allocate(1000)
    pool.deallocate(first, 1000)
    pool.deallocate(pool.allocate(1000), 1000)
    counters = pool.counters()
    assert counters.allocations == 2
    assert counters.from_upstream == counters.upstream_allocations == 1
    assert counters.from_own_stream + counters.from_ready == 1
    assert counters.upstream_frees == counters.waits == 0


def test_each_allocation_came_from_one_place() -> None:
    pool, streams = make_pool(0, "8MiB"), [cenote.DEFAULT_STREAM, cenote.Stream(), cenote.Stream()]
    for turn in range(60):
        size = 256 * (1 + 997 * turn % 8000)
        held = pool.allocate(size, streams[turn % 3])
        pool.deallocate(held, size, streams[(turn // 3) % 3])
    counters = asdict(pool.counters())
    sources = [counters[name] for name in counters if name.startswith("from_")]
    assert sum(sources) == counters["allocations"] == 60
    pool.check()


def test_trim_gives_back_what_is_free_and_keeps_what_is_used() -> None:
    counted = mr.StatisticsResourceAdaptor(mr.CudaMemoryResource())
    pool = make_pool(0, upstream=counted)
    used = pool.allocate(1000)
    pool.deallocate(pool.allocate(64 * MIB), 64 * MIB)
    held = pool.pool_size()
    given_back = pool.trim()
    assert given_back >= 64 * MIB
    assert pool.pool_size() == held - given_back == counted.allocation_counts.current_bytes
    pool.deallocate(used, 1000)
    pool.trim()
    assert pool.pool_size() == counted.allocation_counts.current_bytes == 0
    assert pool.counters().upstream_frees == pool.counters().upstream_allocations
    pool.check()


@pytest.mark.parametrize("specification", ["pool:initial=0 | cuda", "pool | virtual", "statistics | pool | virtual"])
def test_trim_can_wait_for_work_that_is_pending(specification: str) -> None:
    pool = mr.from_spec(specification)
    stream = cenote.Stream()
    buffers = [cenote.DeviceBuffer(size=16 * MIB, stream=stream, mr=pool) for _ in range(2)]
    for _ in range(100):
        buffers[0].copy_from_device(buffers[1], stream)
    for buffer in buffers:
        buffer.close()
    assert pool.trim() == 0
    assert pool.trim(wait=True) >= 32 * MIB
    assert pool.state().held == 0


def test_trim_keeps_as_much_as_it_was_told() -> None:
    pool = make_pool(0)
    for address in [pool.allocate(8 * MIB) for _ in range(4)]:
        pool.deallocate(address, 8 * MIB)
    held = pool.pool_size()
    assert pool.trim(held) == 0
    pool.trim(16 * MIB)
    assert 0 < pool.pool_size() <= 16 * MIB


def test_trim_of_the_outermost_reaches_the_pool() -> None:
    stack = mr.from_spec("statistics | pool:initial=4MiB | cuda")
    assert stack.trim() == 4 * MIB


def test_state_tells_use_and_limits() -> None:
    pool = make_pool("4MiB", "8MiB")
    address = pool.allocate(1000)
    state = pool.state()
    assert (state.in_use, state.held, state.limit) == (1024, 4 * MIB, 8 * MIB)
    assert state.largest_free == 4 * MIB - 1024
    pool.deallocate(address, 1000)


def test_pointer_that_is_not_of_the_pool_is_ignored_and_reported_once(
    run_fresh: Callable[..., CompletedProcess[str]],
) -> None:
    done = run_fresh("""
        from cenote import mr
        pool = mr.PoolMemoryResource(mr.CudaMemoryResource(), "1MiB")
        address = pool.allocate(1000)
        for _ in range(3):
            pool.deallocate(address + 256, 256)
        pool.deallocate(address, 1000)
        pool.deallocate(address, 1000)
        pool.check()
        assert pool.state().in_use == 0
    """)
    assert done.stderr.count("the pool did not give out, or that was freed already") == 1


def test_pool_that_dies_with_blocks_in_use_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    pool = make_pool("1MiB")
    pool.allocate(7 * 256)
    del pool
    said = capfd.readouterr().err
    assert "a pool is destroyed" in said and "still in use" in said and "1.75 KiB" in said


def test_pool_outlives_a_stream_that_used_it() -> None:
    pool, stream = make_pool("2MiB", "2MiB"), cenote.Stream()
    pool.deallocate(pool.allocate(2 * MIB, stream), 2 * MIB, stream)
    del stream
    other = cenote.Stream()
    pool.deallocate(pool.allocate(2 * MIB, other), 2 * MIB, other)
    pool.check()


PAIRS_ON_A_STREAM = """
    import cenote
    from cenote import mr, sim

    pool, stream = mr.PoolMemoryResource(mr.CudaMemoryResource(), "1MiB"), cenote.Stream()
    for pairs in (3, 100):
        sim.reset_calls()
        for _ in range(pairs):
            pool.deallocate(pool.allocate(1000, stream), 1000, stream)
    print(sum(sim.calls().values()), sim.calls("cuStreamIsCapturing"))
"""


@pytest.mark.parametrize(("promise", "calls"), [(None, "200 200"), ("", "200 200"), ("announced", "0 0")])
def test_stream_is_asked_whether_it_is_captured_unless_captures_are_announced(
    run_fresh: Callable[..., CompletedProcess[str]], promise: str | None, calls: str
) -> None:
    finished = run_fresh(PAIRS_ON_A_STREAM, CENOTE_CAPTURES=promise)
    assert finished.stdout.split("\n")[0] == calls
    assert finished.stderr == ""


def test_promise_that_is_not_understood_is_said_and_not_believed(
    run_fresh: Callable[..., CompletedProcess[str]],
) -> None:
    finished = run_fresh(PAIRS_ON_A_STREAM, CENOTE_CAPTURES="anounced")
    assert finished.stdout.split("\n")[0] == "200 200"
    assert finished.stderr.count('CENOTE_CAPTURES is "anounced" and has no effect') == 1


def test_pinned_pages_stay_until_the_last_pin_is_taken_back() -> None:
    pool = mr.from_spec("pool | virtual")
    block = pool.allocate(5 * MIB)
    pool.pin(block)
    pool.pin(block)
    pool.pin(block, kind="captured")
    assert pool.pins() == [mr.Pin(block, 5 * MIB, "captured", 1), mr.Pin(block, 5 * MIB, "exported", 2)]
    pool.deallocate(block, 5 * MIB)
    for kind in ("exported", "captured", "exported"):
        pool.trim(wait=True)
        assert pool.pool_size() == 6 * MIB
        pool.unpin(block, kind)
    assert pool.pins() == []
    pool.trim(wait=True)
    assert pool.pool_size() == 0


@pytest.mark.parametrize("specification", ["pool:initial=0 | cuda", "pool | virtual"])
def test_pin_errors_name_the_address_or_the_kinds_and_change_nothing(specification: str) -> None:
    pool = mr.from_spec(specification)
    block = pool.allocate(MIB)
    with pytest.raises(ValueError, match=f"no block in use starts at {block + 256:#x}"):
        pool.pin(block + 256)
    with pytest.raises(ValueError, match=f"nothing is pinned as exported at {block:#x}"):
        pool.unpin(block)
    with pytest.raises(ValueError, match="captured, exported, registered, lent, not 'rdma'"):
        pool.pin(block, "rdma")
    assert pool.pins() == []
    pool.deallocate(block, MIB)
    with pytest.raises(ValueError, match="no block in use"):
        pool.pin(block)


def test_a_pinned_chunk_stays_in_its_pool() -> None:
    pool = make_pool(0)
    block = pool.allocate(64 * MIB)
    pool.pin(block, "registered")
    pool.deallocate(block, 64 * MIB)
    assert pool.trim(wait=True) == 0
    pool.unpin(block, "registered")
    assert pool.trim(wait=True) == 64 * MIB


def test_the_pages_of_pinned_memory_are_not_brought_elsewhere() -> None:
    pool = mr.PoolMemoryResource(mr.VirtualMemoryResource(), maximum_pool_size="16MiB")
    blocks = [pool.allocate(2 * MIB) for _ in range(8)]
    pool.pin(blocks[2], "lent")
    for block in blocks[::2]:
        pool.deallocate(block, 2 * MIB)
    with pytest.raises(MemoryError):
        pool.allocate(8 * MIB)
    pool.unpin(blocks[2], "lent")
    large = pool.allocate(8 * MIB)
    pool.deallocate(large, 8 * MIB)
    for block in blocks[1::2]:
        pool.deallocate(block, 2 * MIB)
