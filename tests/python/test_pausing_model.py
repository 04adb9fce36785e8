"""Pauses against a model of them, over random histories with calls that fail, full devices and threads beside them."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

import cenote
from cenote import mr, sim

KIB = 1024
NAMES = ("weights of the model", "cache of the model")
CALLS = (
    *("cuMemCreate", "cuMemMap", "cuMemSetAccess", "cuMemUnmap", "cuMemRelease", "cuMemcpyAsync", "cuMemHostRegister"),
    *("cuEventCreate", "cuEventRecord", "cuEventSynchronize", "cuStreamSynchronize", "cuCtxSynchronize"),
)
regions = st.sampled_from(NAMES)
keeps = st.sampled_from(["host", "nothing", "peer:1", f"file:{tempfile.gettempdir()}"])
sizes = st.one_of(st.integers(1, 4 * KIB), st.integers(1, 6 * KIB * KIB), st.sampled_from([2048 * KIB, 2050 * KIB]))


@dataclass(eq=False)
class Block:
    """A buffer of a region, and what lies in it; None where nobody knows."""

    region: str
    buffer: cenote.DeviceBuffer
    content: bytes | None


class Pausing(RuleBasedStateMachine):
    """What is running has its contents; what is paused has no memory; what fails changes nothing."""

    blocks = Bundle("blocks")

    def __init__(self) -> None:
        super().__init__()
        self.paused: dict[str, str] = {}
        self.live: list[Block] = []
        self.others: list[tuple[int, int]] = []
        self.source = mr.CudaMemoryResource()
        self.random = np.random.default_rng(20261129)
        self.regions = {name: cenote.region(name, 0) for name in NAMES}
        for region in self.regions.values():
            with region:
                pass

    @rule(target=blocks, region=regions, size=sizes)
    def allocate(self, region: str, size: int) -> object:
        content = self.random.bytes(min(size, KIB)) * (size // KIB + 1)
        try:
            with cenote.region(region):
                block = Block(region, cenote.DeviceBuffer.to_device(content[:size]), content[:size])
        except (RuntimeError, MemoryError) as error:
            assert region in self.paused or self.others, error
            return multiple()
        assert region not in self.paused
        self.live.append(block)
        return block

    @rule(block=consumes(blocks))
    def free(self, block: Block) -> None:
        self.live.remove(block)
        del block.buffer

    @rule(block=blocks, size=sizes)
    def write(self, block: Block, size: int) -> None:
        if block.region not in self.paused and block.content is not None:
            fresh = self.random.bytes(min(size, block.buffer.size))
            block.buffer.copy_from_host(fresh)
            block.content = fresh + block.content[len(fresh) :]

    @rule(region=regions, keep=keeps)
    def pause(self, region: str, keep: str) -> None:
        try:
            cenote.pause(region, keep)
        except RuntimeError:
            assert region in self.paused
        else:
            assert region not in self.paused
            self.paused[region] = keep

    @rule(region=regions, keep=keeps, name=st.sampled_from(CALLS), nth=st.integers(1, 12))
    def pause_while_a_call_fails(self, region: str, keep: str, name: str, nth: int) -> None:
        if region in self.paused:
            return
        with sim.failing(name, nth, "CUDA_ERROR_UNKNOWN"):
            try:
                cenote.pause(region, keep)
            except cenote.CudaError:
                assert not cenote.region(region).is_paused
            else:
                self.paused[region] = keep

    @rule(region=regions)
    def resume(self, region: str) -> None:
        try:
            cenote.resume(region)
        except RuntimeError:
            assert region not in self.paused
        except MemoryError as error:
            assert self.others, error
            assert "are missing" in str(error)
        else:
            self.is_running(region)

    @rule(region=regions, name=st.sampled_from(CALLS), nth=st.integers(1, 12))
    def resume_while_a_call_fails(self, region: str, name: str, nth: int) -> None:
        if region not in self.paused:
            return
        with sim.failing(name, nth, "CUDA_ERROR_UNKNOWN"):
            try:
                cenote.resume(region)
            except (cenote.CudaError, MemoryError):
                assert cenote.region(region).nbytes == 0
            else:
                self.is_running(region)

    @rule(left=st.integers(0, 4096 * KIB))
    def take_the_device(self, left: int) -> None:
        size = max(cenote.available_device_memory()[0] - left, 1)
        with contextlib.suppress(cenote.OutOfMemoryError):
            self.others.append((self.source.allocate(size), size))

    @rule()
    def leave_the_device(self) -> None:
        while self.others:
            self.source.deallocate(*self.others.pop())

    @rule(region=regions)
    def pause_and_resume_beside_threads(self, region: str) -> None:
        if region in self.paused or self.others:
            return
        is_over = threading.Event()
        refusals: set[str] = set()

        def allocate_and_free() -> None:
            with cenote.region(region):
                while not is_over.is_set():
                    try:
                        cenote.DeviceBuffer(size=3 * KIB, stream=stream)
                    except RuntimeError as error:
                        refusals.add(str(error))

        stream = cenote.Stream()
        threads = [threading.Thread(target=allocate_and_free) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            cenote.pause(region)
            assert cenote.region(region).nbytes == 0
            cenote.resume(region)
        is_over.set()
        for thread in threads:
            thread.join()
        assert all("is paused" in each for each in refusals)

    def is_running(self, region: str) -> None:
        if self.paused.pop(region) == "nothing":
            for block in self.live:
                block.content = None if block.region == region else block.content

    @invariant()
    def paused_is_what_was_paused(self) -> None:
        for name, region in self.regions.items():
            assert region.is_paused == (name in self.paused)
            assert not region.is_paused or region.nbytes == 0

    @invariant()
    def contents_are_there(self) -> None:
        for block in self.live:
            if block.region in self.paused:
                found = bytearray(block.buffer.size)
                is_kept = self.regions[block.region].read_paused(block.buffer.ptr, found)
                assert is_kept == (self.paused[block.region] != "nothing")
            else:
                found, is_kept = block.buffer.tobytes(), True
            assert not is_kept or block.content is None or found == block.content

    def teardown(self) -> None:
        self.leave_the_device()
        for region in list(self.paused):
            self.resume(region)
        self.contents_are_there()
        self.live.clear()
        for region in self.regions.values():
            for pool in region.pools:
                pool.trim()
        sim.clear_reports()


class TestPausing(Pausing.TestCase):
    settings = settings(max_examples=6, stateful_step_count=25, deadline=None, derandomize=True)


@pytest.mark.slow
class TestPausingForLonger(Pausing.TestCase):
    settings = settings(max_examples=40, stateful_step_count=40, deadline=None, derandomize=True)
