"""Regions, pauses and what comes back: on the simulated device, whose memory can be compared byte by byte."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import cenote
from cenote import mr, pausing, sim

MIB = 1 << 20


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    gc.collect()
    for name, region in pausing.regions().items():
        if region.is_paused:
            cenote.resume(name)
        for pool in region.pools:
            pool.trim()
    pausing.keep_pinned(0)
    pausing.keep_pinned("64GiB")


def filled(count: int, seed: int = 1) -> tuple[cenote.DeviceBuffer, bytes]:
    content = np.random.default_rng(seed).bytes(count)
    return cenote.DeviceBuffer.to_device(content), content


def test_a_region_has_its_contents_and_addresses_again_after_a_pause() -> None:
    with cenote.region("weights") as weights:
        blocks = [filled(count, count) for count in (1, 3 * MIB, 700, 5 * MIB + 1)]
    addresses = [buffer.ptr for buffer, _ in blocks]
    held = weights.nbytes
    free = cenote.available_device_memory()[0]
    assert cenote.pause("weights") == held
    assert (weights.is_paused, weights.nbytes, weights.paused_nbytes) == (True, 0, held)
    assert cenote.available_device_memory()[0] >= free + held
    assert cenote.resume(weights) == held
    assert (weights.is_paused, weights.nbytes, weights.paused_nbytes) == (False, held, 0)
    assert [buffer.ptr for buffer, _ in blocks] == addresses
    assert all(buffer.tobytes() == content for buffer, content in blocks)


def test_regions_are_paused_by_themselves() -> None:
    with cenote.region("weights"):
        weights, content = filled(MIB)
        with cenote.region("cache") as cache:
            cached, _ = filled(MIB)
        more, _ = filled(MIB)
    outside, _ = filled(MIB)
    cenote.pause(cache, keep="nothing", fill=5)
    assert weights.tobytes() == content
    with cenote.region("weights"):
        assert filled(1000)[0].size == 1000
    with pytest.raises(RuntimeError, match="is paused"), cenote.region("cache"):
        cenote.DeviceBuffer(size=1000)
    cenote.resume("cache")
    assert cached.tobytes() == bytes([5]) * MIB
    assert {more.size, outside.size} == {MIB}


def test_what_is_wrong_is_an_error_that_changes_nothing() -> None:
    with cenote.region("weights") as weights:
        buffer, content = filled(MIB)
    with pytest.raises(RuntimeError, match="not paused"):
        cenote.resume("weights")
    with pytest.raises(ValueError, match="contents are kept in"):
        cenote.pause("weights", keep="elsewhere")
    with pytest.raises(ValueError, match="goes with keep='nothing'"):
        cenote.pause("weights", fill=1)
    with pytest.raises(ValueError, match="there is no region"):
        cenote.pause("nobody's")
    with pytest.raises(ValueError, match="has none"):
        cenote.pause(mr.CudaMemoryResource())
    assert not weights.is_paused
    cenote.pause("weights")
    with pytest.raises(RuntimeError, match="paused already"):
        cenote.pause("weights")
    with pytest.raises(RuntimeError, match="the memory is paused"):
        buffer.tobytes()
    sim.clear_violations()
    cenote.resume("weights")
    assert buffer.tobytes() == content


def test_what_others_know_by_its_pages_is_not_paused() -> None:
    with cenote.region("shared", resource="pool | virtual") as region:
        buffer, content = filled(MIB)
    pool = region.pools[0]
    assert isinstance(pool, mr.PoolMemoryResource)
    buffer.share()  # which pins it as soon as somebody opens it
    cenote.pause(region)
    with pytest.raises(RuntimeError, match="pins nothing"):
        pool.pin(buffer.ptr)
    cenote.resume(region)
    pool.pin(buffer.ptr)
    with pytest.raises(RuntimeError, match=r"others know its memory: .*\(exported\)"):
        cenote.pause(region)
    pool.unpin(buffer.ptr)
    assert buffer.tobytes() == content


def test_too_little_memory_says_how_much_is_missing() -> None:
    with cenote.region("weights") as weights:
        buffer, content = filled(64 * MIB)
    cenote.pause("weights")
    taken = mr.CudaMemoryResource()
    size = cenote.available_device_memory()[0] - 16 * MIB
    others = taken.allocate(size)
    with pytest.raises(MemoryError, match="are missing"):
        cenote.resume("weights")
    assert weights.is_paused
    taken.deallocate(others, size)
    cenote.resume("weights")
    assert buffer.tobytes() == content


def test_what_the_host_has_no_memory_for_is_not_paused_and_nobody_is_killed(run_fresh: Callable[..., object]) -> None:
    run_fresh(
        """
        import os
        import cenote

        chunk = 32 << 20
        host_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE") // chunk * chunk + chunk
        with cenote.region("small") as small:
            buffer = cenote.DeviceBuffer.to_device(b"kept")
        with cenote.region("large") as large:
            block = cenote.DeviceBuffer(size=host_bytes)
        held = large.nbytes
        for what in ("large", None):
            try:
                cenote.pause(what)
            except cenote.OutOfMemoryError as error:
                assert error.requested == host_bytes and error.limit < host_bytes
                assert "requested from 'pinned memory of the host'" in str(error), error
                assert 'keep="file:FOLDER"' in str(error), error
            else:
                raise AssertionError("the host has no such memory")
            assert not large.is_paused and large.nbytes == held
            assert not small.is_paused and buffer.tobytes() == b"kept"  # None had paused it before
        assert cenote.pause("large", keep="nothing") == held
        assert cenote.resume("large") == held
        """,
        CENOTE_SIM="memory=4TiB,poison=0",
    )


def test_everything_is_the_regions_and_the_current_resources() -> None:
    pool = mr.from_spec("statistics | pool")
    mr.set_current_device_resource(pool)
    outside, content = filled(MIB)
    with cenote.region("weights") as weights:
        inside, same = filled(MIB)
    cenote.pause(weights)
    assert cenote.pause() == 2 * MIB
    with pytest.raises(RuntimeError, match="nothing to pause"):
        cenote.pause()
    cenote.resume()
    with pytest.raises(RuntimeError, match="nothing is paused"):
        cenote.resume()
    assert outside.tobytes() == inside.tobytes() == content == same
    assert cenote.pause(pool) == 2 * MIB
    cenote.resume(pool)
    del outside


def test_blocks_may_be_freed_while_they_are_paused() -> None:
    with cenote.region("weights") as weights:
        kept, content = filled(MIB)
        freed, _ = filled(32 * MIB)
    held = weights.nbytes
    cenote.pause("weights")
    del freed
    assert cenote.resume("weights") <= held - 30 * MIB
    assert kept.tobytes() == content


def test_what_is_paused_is_read_and_stays_paused() -> None:
    with cenote.region("weights") as weights:
        buffer, content = filled(40 * MIB)
    part = np.zeros(5 * MIB, np.uint8)
    assert not weights.read_paused(buffer.ptr, part)
    cenote.pause("weights")
    assert weights.read_paused(buffer.ptr + 30 * MIB, part)
    assert part.tobytes() == content[30 * MIB : 35 * MIB]
    assert weights.read_paused(buffer.ptr, bytearray())
    assert not weights.read_paused(buffer.ptr + 40 * MIB, part)
    never_entered = cenote.region("never entered")
    assert not never_entered.read_paused(buffer.ptr, part)
    with pytest.raises(TypeError, match="ptr"):
        never_entered.read_paused("an address", part)  # type: ignore[arg-type]
    assert weights.is_paused
    with pytest.raises(TypeError, match="ptr"):
        weights.read_paused("an address", part)  # type: ignore[arg-type]
    with pytest.raises(BufferError, match="read-only"):
        weights.read_paused(buffer.ptr, b"constant")
    cenote.resume("weights")
    assert buffer.tobytes() == content


def test_a_region_is_its_threads_and_ends_there() -> None:
    scope = cenote.region("weights")
    seen = []
    with scope:
        pool = mr.get_current_device_resource()
        thread = threading.Thread(target=lambda: seen.append(mr.get_current_device_resource()))
        thread.start()
        thread.join()
        assert scope.pools == (pool,)
        assert seen[0] is not pool
        with pytest.raises(RuntimeError, match="after those that began within it"), cenote.use("cuda"):
            scope.__exit__(None, None, None)
    with pytest.raises(ValueError, match="cannot be empty"):
        cenote.region("")
    with (
        pytest.raises(ValueError, match=r"not 'pool:max=1GiB \| virtual'"),
        cenote.region("weights", resource="pool:max=1GiB | virtual"),
    ):
        pass
    with pytest.raises(IndexError), cenote.region("weights", 63):
        pass
    with cenote.region("weights", 1):
        assert mr.get_per_device_resource(1) is scope.pools[1]


def test_pinned_memory_is_kept_up_to_a_bound() -> None:
    with cenote.region("weights"):
        buffer, content = filled(MIB)
    for _ in range(2):
        cenote.pause("weights")
        cenote.resume("weights")
    assert pausing.kept_pinned_nbytes() == 32 * MIB
    assert pausing.keep_pinned("31 MiB") == 32 * MIB
    cenote.pause("weights")
    cenote.resume("weights")
    assert pausing.kept_pinned_nbytes() == 0
    assert buffer.tobytes() == content


def test_pinned_memory_comes_in_chunks_of_several_sizes() -> None:
    with cenote.region("small"):
        small, of_small = filled(MIB)
    with cenote.region("large"):
        large = [filled(150 * MIB, seed) for seed in (2, 3)]
    cenote.pause("small")
    cenote.resume("small")
    assert pausing.kept_pinned_nbytes() == 32 * MIB
    for _ in range(2):
        cenote.pause("large")
        cenote.pause("small")
        cenote.resume("large")
        cenote.resume("small")
        assert small.tobytes() == of_small
        for buffer, content in large:
            assert buffer.tobytes() == content
        assert pausing.kept_pinned_nbytes() == 11 * 32 * MIB
    cenote.pause("small")  # takes none of the large ones
    assert pausing.kept_pinned_nbytes() == 10 * 32 * MIB
    cenote.resume("small")
    assert pausing.keep_pinned("255 MiB") == 256 * MIB
    assert pausing.kept_pinned_nbytes() == 3 * 32 * MIB


@pytest.mark.parametrize("place", ["peer:1", "file:."])
def test_contents_are_kept_by_another_device_or_a_file(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with cenote.region("on the first", 0) as region:
        buffer, content = filled(40 * MIB)
    cenote.pause(region, keep=place)
    assert list(tmp_path.iterdir()) == []
    cenote.resume(region)
    assert buffer.tobytes() == content
    with pytest.raises(RuntimeError, match="cannot be made: No such file"):
        cenote.pause(region, keep="file:no/such/folder")
    with pytest.raises(IndexError):
        cenote.pause(region, keep="peer:63")


def test_memory_pinned_before_a_reset_of_the_simulated_machine_is_not_used_after_it(
    run_fresh: Callable[..., object],
) -> None:
    run_fresh(
        """
        import cenote
        from cenote import pausing, sim

        def cycle():
            pool = cenote.mr.from_spec("pool")
            buffer = cenote.DeviceBuffer(size=1000, mr=pool)
            buffer.copy_from_host(b"x" * 1000)
            cenote.pause(pool)
            cenote.resume(pool)
            assert buffer.tobytes() == b"x" * 1000
            buffer.close()

        cycle()
        assert pausing.kept_pinned_nbytes() == 32 << 20
        sim.reset()
        assert pausing.kept_pinned_nbytes() == 0
        cycle()
        assert sim.violations() == []
        """
    )


def test_a_process_that_is_killed_while_it_is_paused_leaves_no_file(tmp_path: Path) -> None:
    code = """
import os, signal, sys, cenote
pool = cenote.mr.from_spec("pool")
buffer = cenote.DeviceBuffer(size=1 << 20, mr=pool)
cenote.pause(pool, "file:" + sys.argv[1])
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []
