"""The pool against a model of it, over random histories on several streams."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

import cenote
from cenote import mr, sim

KIB = 1024
LARGEST = 4096 * KIB

sizes = st.one_of(
    st.integers(1, 2 * KIB),
    st.integers(1, LARGEST),
    st.sampled_from([256, 257, 512, 64 * KIB, 2048 * KIB, LARGEST]),
)


class Pool(RuleBasedStateMachine):
    """Live blocks are intervals that must not overlap; what is in use, held and limited must add up."""

    streams = Bundle("streams")
    blocks = Bundle("blocks")

    @initialize(initial=st.sampled_from([0, 256, 2048 * KIB]), maximum=st.sampled_from([None, 8192 * KIB]))
    def make(self, initial: int, maximum: int | None) -> None:
        sim.clear_violations()
        self.upstream = mr.StatisticsResourceAdaptor(mr.CudaMemoryResource())
        self.pool = mr.PoolMemoryResource(self.upstream, initial, maximum)
        self.maximum = maximum
        self.live: dict[int, int] = {}

    @initialize(target=streams)
    def default_streams(self) -> object:
        return multiple(cenote.DEFAULT_STREAM, cenote.PER_THREAD_DEFAULT_STREAM)

    @rule(target=streams, flags=st.sampled_from(cenote.CudaStreamFlags))
    def create_stream(self, flags: cenote.CudaStreamFlags) -> cenote.Stream:
        return cenote.Stream(flags=flags)

    @rule(stream=consumes(streams))
    def destroy_stream(self, stream: cenote.Stream) -> None:
        del stream

    @rule(stream=streams)
    def synchronize(self, stream: cenote.Stream) -> None:
        stream.synchronize()

    @rule(target=blocks, stream=streams, size=sizes)
    def allocate(self, stream: cenote.Stream, size: int) -> object:
        try:
            address = self.pool.allocate(size, stream)
        except cenote.OutOfMemoryError as error:
            assert self.maximum is not None, "an unlimited pool ran out of memory"
            assert error.requested == size
            return multiple()
        assert address % 256 == 0
        assert all(address + size <= other or other + self.live[other] <= address for other in self.live)
        self.live[address] = size
        return address

    @rule(block=consumes(blocks), stream=streams)
    def deallocate(self, block: int, stream: cenote.Stream) -> None:
        self.pool.deallocate(block, self.live.pop(block), stream)

    @rule(keep=st.sampled_from([0, 2048 * KIB]))
    def trim(self, keep: int) -> None:
        before = self.pool.pool_size()
        assert self.pool.trim(keep) == before - self.pool.pool_size()

    def in_use(self) -> list[int]:
        """What each live block takes of the pool, in bytes."""
        return [-(-size // 256) * 256 for size in self.live.values()]

    @invariant()
    def adds_up(self) -> None:
        if not hasattr(self, "pool"):
            return
        self.pool.check()
        state = self.pool.state()
        assert state.in_use == sum(self.in_use())
        assert state.held == self.pool.pool_size() == self.upstream.allocation_counts.current_bytes
        assert state.largest_free is not None
        assert sum(self.in_use()) + state.largest_free <= self.pool.pool_size()
        assert self.maximum is None or self.pool.pool_size() <= self.maximum
        assert sim.violations() == []

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        for address, size in self.live.items():
            self.pool.deallocate(address, size)
        cenote.driver.synchronize(0)  # memory that work may still use is not given back
        self.pool.trim()
        assert self.upstream.allocation_counts.current_bytes == 0, "memory that is wholly free could not be given back"


Pool.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestPool = Pool.TestCase
