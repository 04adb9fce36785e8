"""Blocks that several processes have: `DeviceBuffer.share` and `cenote.open_shared`, between real processes."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import cenote
from cenote import CudaStreamFlags, DeviceBuffer, Stream, mr
from sharing_peer import Footprint, Peer, footprint, pattern

MIB = 1 << 20
SHAREABLE = "pool | virtual"


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    started = Peer()
    yield started
    started.kill()


@pytest.fixture
def pool() -> mr.PoolMemoryResource:
    made = mr.from_spec(SHAREABLE)
    assert isinstance(made, mr.PoolMemoryResource)
    return made


def filled(seed: int, size: int, pool: mr.DeviceMemoryResource) -> DeviceBuffer:
    buffer = DeviceBuffer(size=size, mr=pool)
    buffer.copy_from_host(pattern(seed, size))
    return buffer


def wait_until(holds: Callable[[], bool]) -> None:
    """What the endpoint's thread does comes soon after the other process has done its part."""
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_block_is_one_memory_in_both_processes(peer: Peer, pool: mr.PoolMemoryResource) -> None:
    buffer = filled(1, 5 * MIB + 3, pool)
    handle = buffer.share()
    assert pickle.loads(pickle.dumps(handle)) == handle == type(handle)(str(handle))
    assert peer.ask("open_block", handle) == (buffer.size, 0)
    assert peer.ask("is_pattern", 1)
    peer.ask("write", b"from the other process")
    assert buffer.tobytes()[:25] == b"from the other process" + pattern(1, 25)[22:]
    peer.ask("let_go")


def test_block_stays_while_another_process_has_it_open(peer: Peer, pool: mr.PoolMemoryResource) -> None:
    buffer = filled(2, MIB, pool)
    address = buffer.ptr
    peer.ask("open_block", buffer.share())
    assert [(pin.address, pin.kind, pin.count) for pin in pool.pins()] == [(address, "exported", 1)]
    with pytest.raises(BufferError, match="another process has it open"):
        buffer.close()
    del buffer
    others = [filled(3, MIB, pool) for _ in range(4)]
    assert address not in {other.ptr for other in others}
    assert peer.ask("is_pattern", 2)
    peer.ask("let_go")
    wait_until(lambda: not pool.pins())
    wait_until(lambda: pool.in_use() == 4 * MIB)


def test_block_of_a_driver_pool_is_shared_too_and_is_the_pools_again(peer: Peer) -> None:
    driver_pool = mr.CudaAsyncMemoryResource(enable_ipc=True)
    buffer = filled(14, 3 * MIB + 5, driver_pool)
    others = [filled(15, size, driver_pool) for size in (100, 5000)]
    peer.ask("open_block", buffer.share())
    small = others[0].share()
    assert peer.ask("open_block", small, "small") == (100, 0)
    assert peer.ask("is_pattern", 14) and peer.ask("is_pattern", 15, "small")
    del buffer
    peer.ask("write", b"other")
    assert peer.ask("contents")[:6] == b"other" + pattern(14, 6)[5:]
    peer.ask("let_go")
    peer.ask("let_go", "small")
    wait_until(lambda: (driver_pool.in_use() or 0) < MIB)
    assert [other.tobytes() for other in others] == [pattern(15, 100), pattern(15, 5000)]


def test_c_reads_what_python_has_shared(peer: Peer, pool: mr.PoolMemoryResource) -> None:
    buffer = filled(13, 5000, pool)
    assert peer.ask("read_by_c", str(buffer.share())) == pattern(13, 5000)
    wait_until(lambda: not pool.pins())


def test_opener_comes_after_the_work_that_was_queued_when_the_block_was_shared(
    peer: Peer, pool: mr.PoolMemoryResource
) -> None:
    stream = Stream(flags=CudaStreamFlags.NON_BLOCKING)
    source = filled(4, MIB, pool)
    buffer = DeviceBuffer(size=MIB, mr=pool, stream=stream)
    buffer.copy_from_device(source, stream=stream)  # queued: nothing here waits for it
    handle = buffer.share(stream)
    peer.ask("open_block", handle)
    assert peer.ask("is_pattern", 4)
    source.copy_from_host(pattern(5, MIB))
    buffer.copy_from_device(source, stream=stream)
    assert peer.ask("is_pattern", 4)  # nobody has announced what comes later
    assert buffer.share() == handle
    peer.ask("open_block", handle, "again")
    assert peer.ask("is_pattern", 5, "again")
    peer.ask("let_go")
    peer.ask("let_go", "again")


@pytest.mark.parametrize("spec", [SHAREABLE, "async:ipc=true"])
def test_a_stream_of_another_device_comes_after_the_work_of_the_owner(peer: Peer, spec: str) -> None:
    stream = Stream(flags=CudaStreamFlags.NON_BLOCKING)
    buffer = DeviceBuffer(size=MIB, stream=stream, mr=mr.from_spec(spec))
    buffer.copy_from_host(pattern(6, MIB), stream=stream)
    assert peer.ask("copy_to_device", buffer.share(), 1) == pattern(6, MIB)


def test_what_cannot_be_opened_says_why(pool: mr.PoolMemoryResource, peer: Peer) -> None:
    buffer = filled(6, MIB, pool)
    handle = buffer.share()
    with pytest.raises(RuntimeError, match="is this process's own"):
        cenote.open_shared(handle)
    del buffer
    with pytest.raises(RuntimeError, match=f"process {os.getpid()}, which shared it, has freed it"):
        peer.ask("open_block", handle)
    for text, why in [
        ("nonsense", "this is no handle of a shared block"),
        ("", "this is no handle of a shared block"),
        (str(handle).replace("block:1", "block:2"), "of another version of cenote"),
        (str(handle)[:-9], "cut off or changed"),
    ]:
        with pytest.raises(ValueError, match=why):
            cenote.open_shared(text)
    with pytest.raises(TypeError, match="a handle must be"):
        cenote.open_shared(7)  # type: ignore[arg-type]


def test_what_cannot_be_shared_says_what_to_do(pool: mr.PoolMemoryResource) -> None:
    for resource in (mr.CudaMemoryResource(), mr.CudaAsyncMemoryResource(), mr.from_spec("pool | virtual:ipc=false")):
        with pytest.raises(
            RuntimeError, match=r"Take the block from the resource .pool \| virtual., without ipc=false"
        ):
            DeviceBuffer(size=MIB, mr=resource).share()
    with pytest.raises(ValueError, match="an empty buffer"):
        DeviceBuffer(mr=pool).share()


@pytest.mark.slow
def test_owner_that_ended_leaves_what_others_have_and_late_ones_are_told() -> None:
    owner = Peer()
    handles = [owner.ask("make_block", seed, 3 * MIB, str(seed)) for seed in (7, 8)]
    opened = cenote.open_shared(handles[0])
    owner.kill()
    assert opened.tobytes() == pattern(7, 3 * MIB)
    with pytest.raises(RuntimeError, match=r"which shared it, has ended"):
        cenote.open_shared(handles[1])


@pytest.mark.slow
def test_block_is_the_pools_again_when_a_process_that_has_it_is_killed(pool: mr.PoolMemoryResource) -> None:
    buffer = filled(9, MIB, pool)
    killed = Peer()
    killed.ask("open_block", buffer.share())
    assert pool.pins()
    killed.kill()
    del buffer
    wait_until(lambda: not pool.pins() and pool.in_use() == 0)


@pytest.mark.slow
def test_device_that_the_opener_does_not_see_is_named(pool: mr.PoolMemoryResource) -> None:
    other = Peer(CUDA_VISIBLE_DEVICES="1")
    with pytest.raises(RuntimeError, match="which this process does not see: look at CUDA_VISIBLE_DEVICES"):
        other.ask("open_block", filled(10, MIB, pool).share())
    renumbered = Peer(CUDA_VISIBLE_DEVICES="1,0")
    kept = filled(11, MIB, pool)
    assert renumbered.ask("open_block", kept.share(), "block", 0) == (MIB, 1)
    assert renumbered.ask("is_pattern", 11)
    other.kill()
    renumbered.kill()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only the super-user can become another one")
def test_process_of_another_user_gets_nothing(pool: mr.PoolMemoryResource) -> None:
    buffer = filled(12, MIB, pool)
    other = Peer()
    other.ask("become_user", 65534)
    with pytest.raises(RuntimeError, match="is of user 0, and this one of user 65534"):
        other.ask("open_block", buffer.share())
    other.kill()


@pytest.mark.slow
def test_nothing_is_left_of_blocks_that_were_opened_and_closed(peer: Peer, pool: mr.PoolMemoryResource) -> None:
    def share_once(seed: int) -> None:
        buffer = filled(seed, 3 * MIB, pool)
        peer.ask("open_block", buffer.share())
        assert peer.ask("is_pattern", seed)
        peer.ask("let_go")
        del buffer
        wait_until(lambda: pool.in_use() == 0)

    def held_here() -> Footprint:
        pool.trim(wait=True)  # how much it holds is a matter of time
        return footprint()

    share_once(0)
    gc.collect()
    before = held_here(), peer.ask("footprint")
    for seed in range(60):
        share_once(seed)
    wait_until(lambda: held_here().has_grown_since(before[0]) == {})
    assert peer.ask("footprint").has_grown_since(before[1]) == {}


@pytest.mark.long
def test_thousand_blocks_arrive_and_leave_nothing_though_processes_are_killed(pool: mr.PoolMemoryResource) -> None:
    chance = random.Random(16)
    peers = [Peer() for _ in range(2)]
    before: Footprint | None = None
    opened = 0
    while opened < 1000:
        which = chance.randrange(2)
        other = peers[which]
        size = chance.choice([chance.randint(1, 4096), chance.randint(1, 2 * MIB), chance.randint(MIB, 12 * MIB)])
        buffer = filled(opened, size, pool)
        handle = buffer.share()
        if chance.random() < 0.5:
            other.ask("open_block", handle)
            if chance.random() < 0.5:
                del buffer
            assert other.ask("is_pattern", opened)
            other.ask("let_go")
        else:  # the other way round
            other.ask("make_block", opened, size, "own")
            mine = cenote.open_shared(other.ask("make_block", opened + 1, size, "own"))
            assert mine.tobytes() == pattern(opened + 1, size)
            del mine
        opened += 1
        if chance.random() < 0.03:  # at any moment of an opening, on either side of it
            if chance.random() < 0.5:
                other.tell("open_block", handle)
                time.sleep(chance.random() * 0.01)
                other.kill()
            else:
                kept = other.ask("make_block", opened, size, "own")
                killer = threading.Timer(chance.random() * 0.002, other.kill)
                killer.start()
                with contextlib.suppress(RuntimeError):  # it has ended, or not all has arrived
                    assert cenote.open_shared(kept).tobytes() == pattern(opened, size)
                killer.join()
            peers[which] = Peer()
        buffer = None
        wait_until(lambda: not pool.pins())
        if opened % 250 == 50:
            pool.trim()
            wait_until(lambda: cenote.sim.live().handles == 0)
            before = before or footprint()
            assert footprint().has_grown_since(before) == {}
    for other in peers:
        other.kill()
